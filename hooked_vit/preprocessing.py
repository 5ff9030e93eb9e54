"""From pictures to a model's input, by timm's own transform for its weights, and back."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hooked_vit.config import HookedViTConfig

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_TIFF_BITS_PER_SAMPLE = 258


def preprocess(
    images: Any, cfg: HookedViTConfig, data_config: dict[str, Any] | None, upright: bool = True
) -> Float[Tensor, "batch channel height width"]:
    """Resize, crop and normalise pictures; see `HookedViT.preprocess`. `upright` as in `as_picture`.

    Transparent pictures are composited on white, unless the model takes four channels. 16-bit pictures are scaled from
    their full range to 8 bits.
    """
    pictures, config = _pictures(images, cfg, data_config, upright)
    transform = _transform(config)
    return torch.stack([transform(picture) for picture in pictures])


def preprocess_naflex(
    images: Any, cfg: HookedViTConfig, data_config: dict[str, Any] | None, max_patches: int | None = None
) -> dict[str, Tensor]:
    """Turn pictures of any aspect ratio into sequences of patches; see `HookedViT.preprocess_naflex`."""
    if cfg.linear_patches is None:
        raise ValueError("this model takes images, not sequences of patches: use `model.preprocess`")
    pictures, config = _pictures(images, cfg, data_config, upright=True)
    n_patches = cfg.token_layout.n_patches if max_patches is None else max_patches
    if n_patches < 1:
        raise ValueError(f"expected max_patches of at least 1, got {max_patches}")
    transform = _transform(
        config,
        naflex=True,
        patchify=True,
        patch_size=cfg.patch_size,
        max_seq_len=n_patches,
        patchify_channels_last=cfg.linear_patches.given_channels_last,
    )
    sequences = [transform(picture) for picture in pictures]
    keys = ("patches", "patch_coord", "patch_valid")
    return {key: pad_sequence([sequence[key] for sequence in sequences], batch_first=True) for key in keys}


def _pictures(
    images: Any, cfg: HookedViTConfig, data_config: dict[str, Any] | None, upright: bool
) -> tuple[Iterator[Image.Image], tuple[tuple[str, Any], ...]]:
    """Pictures in the model's mode, one after the other, and what timm's transform is made from."""
    if data_config is None:
        raise ValueError(
            "the model's preprocessing is unknown: load the model with from_pretrained, or pass images that are "
            "prepared already"
        )
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
    pictures = (_in_mode(as_picture(image, upright), mode) for image in images)
    return pictures, tuple(sorted(_for_channels(data_config, cfg.n_channels).items()))


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """A result of `as_picture` in another mode, on white if that has no alpha channel."""
    if picture.mode == "RGBA" and mode != "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(mode)


def _for_channels(data_config: Mapping[str, Any], n_channels: int) -> dict[str, Any]:
    """Hashable, with a mean and a standard deviation per channel: the colours' average if they do not match."""
    config = {key: tuple(value) if isinstance(value, list) else value for key, value in data_config.items()}
    for key in ("mean", "std"):
        if len(config[key]) != n_channels:
            config[key] = (sum(config[key]) / len(config[key]),) * n_channels
    return config


@cache
def _transform(data_config: tuple[tuple[str, Any], ...], **options: Any) -> Any:
    return evaluation_transform({**dict(data_config), **options})


def evaluation_transform(data_config: Mapping[str, Any]) -> Any:
    """timm's evaluation transform. A `crop_offset` of `"down"` rounds half a pixel down where torchvision would not.

    >>> evaluation_transform({"input_size": (3, 8, 8), "crop_pct": 1.0})(Image.new("RGB", (11, 9))).shape
    torch.Size([3, 8, 8])
    """
    from timm.data import create_transform
    from torchvision.transforms import CenterCrop, Compose

    config = dict(data_config)
    down = config.pop("crop_offset", "nearest") == "down"
    transform: Any = create_transform(**config, is_training=False)
    if not down:
        return transform
    return Compose(
        [partial(_crop_down, size=step.size) if isinstance(step, CenterCrop) else step for step in transform.transforms]
    )


def _crop_down(picture: Image.Image, size: Sequence[int]) -> Image.Image:
    top, left = ((side - crop) // 2 for side, crop in zip((picture.height, picture.width), size, strict=True))
    return picture.crop((left, top, left + size[1], top + size[0]))


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


def input_of(
    picture: Image.Image, n_channels: int, data_config: Mapping[str, Any] | None
) -> Float[Tensor, "channel height width"]:
    """The model's input that shows a picture as it is, neither resized nor cropped; see `HookedViT.input_of`.

    >>> input_of(Image.new("RGB", (6, 4), "white"), 3, {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})[0, 0, 0]
    tensor(1.)
    """
    mean, std = channel_statistics(n_channels, data_config)
    mode = _MODES.get(n_channels)
    if mode is None:
        raise ValueError(f"pictures have 1, 3 or 4 channels, this model takes {n_channels}: prepare its input yourself")
    pixels = torch.from_numpy(np.array(_in_mode(picture, mode))).reshape(picture.height, picture.width, n_channels)
    return (
        rearrange(pixels, "height width channel -> channel height width")
        .float()
        .div(255)
        .sub(mean[:, None, None])
        .div(std[:, None, None])
    )


def channel_statistics(
    n_channels: int, data_config: Mapping[str, Any] | None
) -> tuple[Float[Tensor, "channel"], Float[Tensor, "channel"]]:
    """The mean and the standard deviation of each channel, by which pictures of values from 0 to 1 are normalised.

    Raises:
        ValueError: If the preprocessing is unknown.

    >>> channel_statistics(3, {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)})
    (tensor([0.5000, 0.5000, 0.5000]), tensor([0.2500, 0.2500, 0.2500]))
    """
    if data_config is None:
        raise ValueError(
            "the model's preprocessing is unknown: load the model with from_pretrained, or set model.data_config to a "
            "dict with a mean and a std"
        )
    config = _for_channels(data_config, n_channels)
    return torch.tensor(config["mean"]), torch.tensor(config["std"])


def as_picture(image: Any, upright: bool = True) -> Image.Image:
    """A PIL image of mode L, RGB or, with any transparency, RGBA, from a path, a PIL image or an array.

    16-bit values (modes I;16, I of PNG and PPM files, uint16 arrays) are scaled from their full range to 8 bits.

    Args:
        image: A path, a PIL image or an array [height width channel] of uint8, uint16, or floats from 0 to 1.
        upright: Whether to rotate photos by their EXIF orientation, or to take the pixels as stored.

    Raises:
        FileNotFoundError: If there is no file at the path.
        ValueError: If the file or array is not a picture, or the range of its values is not known.
        TypeError: If `image` is of another type.
    """
    if isinstance(image, Image.Image):
        return _eight_bits(image, upright)
    if isinstance(image, str | Path):
        try:
            with Image.open(image) as opened:
                picture = _eight_bits(opened, upright)
                return picture.copy() if picture is opened else picture  # the file is read before it is closed
        except FileNotFoundError:
            raise FileNotFoundError(f"no picture at '{image}'") from None
        except (UnidentifiedImageError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"'{image}' cannot be read as a picture: {error}") from error
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = image.float().numpy() if image.dtype == torch.bfloat16 else image.numpy()
    if isinstance(image, np.ndarray):
        return _array_picture(image)
    raise TypeError(f"expected a path, a PIL image or an array, got {type(image).__name__}")


def _eight_bits(image: Image.Image, upright: bool) -> Image.Image:
    white = _white(image)  # before the image is transposed, since the copy does not know its file format
    picture = ImageOps.exif_transpose(image) if upright else image
    if white is not None:
        pixels = np.asarray(picture)
        grey = Image.fromarray(_scaled(pixels, white))
        if "transparency" in picture.info:
            opaque = pixels != picture.info["transparency"]
            grey.putalpha(Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8)))
        picture = grey
    if picture.mode == "La":
        picture = picture.convert("LA")
    if _is_transparent(picture):
        return picture.convert("RGBA")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


def _white(image: Image.Image) -> int | None:
    """The largest value that an image of more than 8 bits can have; `None` for one of 8 bits."""
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, (16,))[0]  # PIL does not scale 12-bit TIFF files
        return 2**bits - 1
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return 2**16 - 1
    if image.mode in ("I", "F"):
        kind = "whole numbers of 32 bits" if image.mode == "I" else "floats"
        raise ValueError(
            f"the range of its values is not known (mode {image.mode}, {kind}): scale them to 8 or 16 "
            "bits, or pass an array of uint8, uint16, or floats from 0 to 1"
        )
    return None


def _scaled(values: np.ndarray, white: int) -> np.ndarray:
    return np.round(values * (255 / white)).clip(0, 255).astype(np.uint8)


def _is_transparent(picture: Image.Image) -> bool:
    has_alpha = picture.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in picture.info
    return has_alpha or (picture.mode == "P" and picture.palette is not None and picture.palette.mode == "RGBA")


def _array_picture(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] not in _MODES and array.shape[0] in _MODES:
        raise ValueError(f"expected [height width channel], got {array.shape}: move the channels to the last axis")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _MODES) or 0 in array.shape:
        raise ValueError(f"expected an array [height width channel] with 1, 3 or 4 channels, got {array.shape}")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ValueError("the picture holds NaN or infinity")
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"expected floats from 0 to 1, got {array.min():.3g} to {array.max():.3g} (a picture, not an input)"
            )
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        array = _scaled(array, 2**16 - 1)
    elif array.dtype != np.uint8:
        raise ValueError(
            f"expected uint8, uint16 or floats from 0 to 1, got {array.dtype}: the range of its values is not known, "
            "scale them yourself"
        )
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def check_finite(images: Sequence[Tensor] | Tensor) -> None:
    """Raise ValueError if a batch of model inputs holds NaN or infinity.

    >>> check_finite(torch.zeros(1, 3, 8, 8))
    """
    for index, image in enumerate(images):
        if not torch.isfinite(image).all():
            raise ValueError(f"image {index} holds NaN or infinity")
