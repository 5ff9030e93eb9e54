"""From pictures to a model's input, by timm's own transform for its weights."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from hooked_vit.config import HookedViTConfig

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def preprocess(
    images: Any, cfg: HookedViTConfig, data_config: dict[str, Any] | None, upright: bool = True
) -> Float[Tensor, "batch channel height width"]:
    """Resize, crop and normalise pictures; see `HookedViT.preprocess`. `upright` as in `as_picture`."""
    if data_config is None:
        raise ValueError("this model does not know its preprocessing: load it with from_pretrained or from_timm")
    if isinstance(images, list | tuple):
        if not images:
            raise ValueError("expected at least one picture, got an empty list")
    else:
        images = [images]
    mode = _MODES.get(cfg.n_channels)
    if mode is None:
        raise ValueError(
            f"pictures have 1, 3 or 4 channels, this model takes {cfg.n_channels}: make its input yourself"
        )
    transform = _transform(tuple(sorted(_for_channels(data_config, cfg.n_channels).items())))
    return torch.stack([transform(as_picture(image, upright).convert(mode)) for image in images])


def _for_channels(data_config: dict[str, Any], n_channels: int) -> dict[str, Any]:
    """Hashable, and with a mean and a deviation for each channel: a greyscale model takes the colours' average."""
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in data_config.items()}
    for key in ("mean", "std"):
        if len(config[key]) != n_channels:
            config[key] = (sum(config[key]) / len(config[key]),) * n_channels
    return config


@cache
def _transform(data_config: tuple[tuple[str, Any], ...]) -> Any:
    from timm.data import create_transform

    return create_transform(**dict(data_config), is_training=False)


def as_picture(image: Any, upright: bool = True) -> Image.Image:
    """A PIL image from a path, a PIL image or an array.

    Args:
        image: One of these.
        upright: Whether a photo whose EXIF says which way is up is turned; or the pixels are taken as stored.

    Raises:
        FileNotFoundError: If there is no file at the path.
        ValueError: If the file is no picture, or the array is not one.
        TypeError: If it is something else.
    """
    if isinstance(image, Image.Image):
        return ImageOps.exif_transpose(image) if upright else image
    if isinstance(image, str | Path):
        try:
            with Image.open(image) as opened:
                picture = ImageOps.exif_transpose(opened) if upright else opened
                return picture.convert("RGB") if picture.mode not in ("L", "RGB", "RGBA") else picture.copy()
        except FileNotFoundError:
            raise FileNotFoundError(f"no picture at '{image}'") from None
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"'{image}' cannot be read as a picture: {error}") from error
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray):
        return _array_picture(image)
    raise TypeError(f"expected a path, a PIL image or an array, got {type(image).__name__}")


def _array_picture(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] not in _MODES and array.shape[0] in _MODES:
        raise ValueError(f"expected [height width channel], got {array.shape}: move the channels to the last axis")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _MODES) or 0 in array.shape:
        raise ValueError(f"expected an array [height width channel] with 1, 3 or 4 channels, got {array.shape}")
    if array.dtype == np.uint8:
        pass
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ValueError("the picture holds NaN or infinity")
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"expected floats from 0 to 1, got {array.min():.3g} to {array.max():.3g} (a picture, not an input)"
            )
        array = np.round(array * 255).astype(np.uint8)
    else:
        raise ValueError(f"expected uint8 or floats from 0 to 1, got {array.dtype}")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def check_finite(images: Sequence[Tensor] | Tensor) -> None:
    """Raise ValueError if a batch that somebody made himself holds NaN or infinity; for use where images enter.

    >>> check_finite(torch.zeros(1, 3, 8, 8))
    """
    for index, image in enumerate(images):
        if not torch.isfinite(image).all():
            raise ValueError(f"image {index} holds NaN or infinity")
