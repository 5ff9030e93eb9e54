"""Object masks resized and cropped like their pictures, so that both show the same pixels."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from hooked_vit.preprocessing import evaluation_transform

__all__ = ["as_mask", "mask_like"]


def mask_like(mask: Any, data_config: Mapping[str, Any]) -> Bool[Tensor, "height width"]:
    """The mask of the model's input from the mask of a picture: resized by nearest neighbour, then cropped or padded.

    This is timm's evaluation transform with nearest-neighbour interpolation, so crop ratio, crop mode and unequal
    image sides are handled as for the picture. Padding does not belong to the object.

    Args:
        mask: A mask that `as_mask` accepts, of the picture's size.
        data_config: The model's preprocessing, `model.data_config`.

    Raises:
        ValueError: If it is not a mask, see `as_mask`.

    >>> left_half = torch.arange(400).expand(300, 400) < 200
    >>> mask_like(left_half, {"input_size": (3, 64, 64), "crop_pct": 0.9}).sum(1).unique()
    tensor([32])
    """
    picture = Image.fromarray(as_mask(mask).numpy().astype(np.uint8))
    hashable = ((key, tuple(value) if isinstance(value, list) else value) for key, value in data_config.items())
    return _transform(tuple(sorted(hashable)))(picture)[0] != 0


@cache
def _transform(data_config: tuple[tuple[str, Any], ...]) -> Any:
    # the transform fills borders with `mean`
    changes = {"interpolation": "nearest", "mean": (0.0,), "normalize": False}
    return evaluation_transform({**dict(data_config), **changes})


def as_mask(mask: Any) -> Bool[Tensor, "height width"]:
    """A mask as a tensor: True on the object.

    Args:
        mask: A bool or whole-number tensor or array [height width], or a PIL image of one channel; any number but 0
            is the object.

    Raises:
        ValueError: If it has other axes, or holds fractions.

    >>> as_mask(np.array([[0, 255], [1, 0]], dtype=np.uint8))
    tensor([[False,  True],
            [ True, False]])
    """
    tensor = torch.as_tensor(np.array(mask) if isinstance(mask, Image.Image) else mask)
    if tensor.ndim != 2 or tensor.is_floating_point() or tensor.is_complex():
        raise ValueError(
            f"expected a mask of bool or whole numbers [height width], got {tensor.dtype} of shape "
            f"{tuple(tensor.shape)}"
        )
    return (tensor != 0).cpu()
