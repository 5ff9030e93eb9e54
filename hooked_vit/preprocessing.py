"""From pictures to a model's input, by timm's own transform for its weights, and back."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
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
        raise ValueError("the model's preprocessing is unknown: load the model with from_pretrained or from_timm")
    if isinstance(images, list | tuple):
        if not images:
            raise ValueError("expected at least one picture, got an empty list")
    else:
        images = [images]
    mode = _MODES.get(cfg.n_channels)
    if mode is None:
        raise ValueError(
            f"pictures have 1, 3 or 4 channels, this model takes {cfg.n_channels}: prepare its input yourself"
        )
    transform = _transform(tuple(sorted(_for_channels(data_config, cfg.n_channels).items())))
    return torch.stack([transform(as_picture(image, upright).convert(mode)) for image in images])


def _for_channels(data_config: Mapping[str, Any], n_channels: int) -> dict[str, Any]:
    """Hashable, with a mean and a standard deviation per channel: the colours' average if they do not match."""
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in data_config.items()}
    for key in ("mean", "std"):
        if len(config[key]) != n_channels:
            config[key] = (sum(config[key]) / len(config[key]),) * n_channels
    return config


@cache
def _transform(data_config: tuple[tuple[str, Any], ...]) -> Any:
    from timm.data import create_transform

    return create_transform(**dict(data_config), is_training=False)


def picture_of(
    image: Float[Tensor, "channel height width"], data_config: Mapping[str, Any] | None
) -> Float[np.ndarray, "height width channel"]:
    """The picture that a preprocessed image shows, 0 to 1; see `HookedViT.picture_of`.

    >>> picture_of(torch.zeros(3, 4, 6), {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})[0, 0].tolist()
    [0.5, 0.5, 0.5]
    """
    if data_config is None:
        low, high = image.float().aminmax()
        pixels = (image.float() - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    else:
        config = _for_channels(data_config, len(image))
        mean, std = (torch.tensor(config[key], device=image.device) for key in ("mean", "std"))
        pixels = (image.float() * std[:, None, None] + mean[:, None, None]).clamp(0, 1)
    return rearrange(pixels, "channel height width -> height width channel").cpu().numpy()


def as_picture(image: Any, upright: bool = True) -> Image.Image:
    """A PIL image from a path, a PIL image or an array.

    Args:
        image: One of these.
        upright: Whether to rotate photos by their EXIF orientation, or to take the pixels as stored.

    Raises:
        FileNotFoundError: If there is no file at the path.
        ValueError: If the file or array is not a picture.
        TypeError: If `image` is of another type.
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
    """Raise ValueError if a batch of model inputs holds NaN or infinity.

    >>> check_finite(torch.zeros(1, 3, 8, 8))
    """
    for index, image in enumerate(images):
        if not torch.isfinite(image).all():
            raise ValueError(f"image {index} holds NaN or infinity")
