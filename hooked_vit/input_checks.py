"""Checks that an input fits the model: shapes, dtypes and devices, without waiting for a GPU."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hooked_vit.class_space import require_several_classes
from hooked_vit.config import HookedViTConfig
from hooked_vit.token_layout import TokenLayout


def check_images(images: Tensor, cfg: HookedViTConfig, weight: Tensor) -> None:
    """Raise ValueError unless `images` is a batch that the model can embed."""
    height, width = cfg.image_size
    expected = f"images of shape [batch, {cfg.n_channels}, {height}, {width}]"
    if not isinstance(images, Tensor):
        require_one_grid(images)
        raise TypeError(
            f"expected {expected}, got {type(images).__name__}: `model.preprocess` turns pictures into a batch"
        )
    if images.ndim != 4:
        hint = "; add a batch axis with `images[None]`" if images.ndim == 3 else ""
        raise ValueError(f"expected {expected}, got shape {tuple(images.shape)}{hint}")
    if images.shape[0] == 0:
        raise ValueError(f"expected {expected}, got an empty batch")
    if images.shape[1] != cfg.n_channels:
        raise ValueError(f"expected {cfg.n_channels} channels in axis 1, got shape {tuple(images.shape)}")
    check_size((images.shape[2], images.shape[3]), cfg)
    check_number(images, weight)


def require_one_grid(images: object) -> None:
    """Raise ValueError if a batch is a dict of patches, for what needs the same tokens in every image.

    >>> require_one_grid({"patches": torch.zeros(1, 6, 192)})
    Traceback (most recent call last):
    ValueError: one grid per batch is needed here, got a dict of patches, each image on its own grid: pass images ...
    """
    if isinstance(images, Mapping):
        raise ValueError(
            "one grid per batch is needed here, got a dict of patches, each image on its own grid: pass images of one "
            "size [batch channel height width], as `model.preprocess` makes them"
        )


def check_size(size: tuple[int, int], cfg: HookedViTConfig) -> None:
    """Raise ValueError unless the model takes images of this height and width."""
    height, width = cfg.image_size
    expected = f"images of shape [batch, {cfg.n_channels}, {height}, {width}]"
    if not cfg.dynamic_image_size:
        if size != cfg.image_size:
            raise ValueError(
                f"expected {expected}, got {size[0]} × {size[1]} pixels: resize them (`model.preprocess` does), or "
                f"load the model with img_size={size} or dynamic_img_size=True"
            )
        return
    misfit = any(pixels % patch for pixels, patch in zip(size, cfg.patch_size, strict=True))
    if (misfit and not cfg.pad_to_patches) or min(size) < 1:
        raise ValueError(
            f"expected a height and width divisible into {cfg.patch_size[0]} × {cfg.patch_size[1]} patches, "
            f"got {size[0]} × {size[1]} pixels"
        )


def check_known_grid(n_tokens: int, layout: TokenLayout) -> None:
    """Raise ValueError unless a stream has the tokens of the model's own image size; other grids must be told."""
    if n_tokens != layout.n_tokens:
        raise ValueError(
            f"the stream has {n_tokens} tokens, images of the model's own size {layout.n_tokens}: pass image_size="
            "(height, width) of the images it comes from, which rotary positions depend on"
        )


def check_residual(residual: Tensor, weight: Tensor, cfg: HookedViTConfig, n_kept: int | None = None) -> None:
    """Raise ValueError unless `residual` is a residual stream of the model: all tokens, or the `n_kept` of a mask."""
    d_model = cfg.d_model
    if residual.ndim != 3 or residual.shape[-1] != d_model:
        raise ValueError(
            f"with start_at_layer the input is a residual stream [batch, token, {d_model}], got {tuple(residual.shape)}"
        )
    if 0 in residual.shape:
        raise ValueError(f"expected a residual stream with at least one image and token, got {tuple(residual.shape)}")
    n_tokens, n_prefix = residual.shape[1], cfg.token_layout.n_prefix
    if n_kept is not None and n_tokens != n_kept:
        raise ValueError(
            f"token_mask keeps {n_kept} tokens, the residual stream has {n_tokens}: pass the stream of a run with the "
            "same mask"
        )
    if n_kept is None and not cfg.dynamic_image_size and n_tokens != cfg.token_layout.n_tokens:
        raise ValueError(
            f"expected a residual stream of {cfg.token_layout.n_tokens} tokens, got {n_tokens}: pass the token_mask "
            "of the run it comes from"
        )
    if n_kept is None and n_tokens <= n_prefix:
        raise ValueError(f"expected a residual stream with patches after {n_prefix} prefix tokens, got {n_tokens}")
    check_number(residual, weight)


def check_number(x: Tensor, weight: Tensor) -> None:
    """Raise ValueError unless `x` has the device and dtype of the model's weights."""
    if x.device != weight.device:
        raise ValueError(f"the input is on {x.device}, the model on {weight.device}: move one of them with `.to(...)`")
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"the input is {x.dtype}, the model {weight.dtype}: convert the input with `.to({weight.dtype})`"
            + ("" if x.is_floating_point() else " after normalising it, as `model.preprocess` does")
        )


def check_return(
    return_type: str | None, labels: Tensor | None, batch: int, n_classes: int, stop_at_layer: int | None
) -> None:
    """Raise ValueError unless the return type exists and can be computed."""
    if return_type not in ("logits", "loss", "both", None):
        raise ValueError(f"return_type is 'logits', 'loss', 'both' or None, not {return_type!r}")
    if return_type in ("loss", "both"):
        if stop_at_layer is not None:
            raise ValueError(
                f"return_type={return_type!r} needs the logits, and stop_at_layer={stop_at_layer} stops before "
                "them: drop one of the two"
            )
        check_labels(labels, batch, n_classes)


def check_labels(labels: Tensor | None, batch: int, n_classes: int) -> None:
    """Raise ValueError unless there is a class index for each image (on a GPU, the loss checks their range)."""
    if labels is None:
        raise ValueError('a loss needs labels: pass `labels=`, a class index for each image, or return_type="logits"')
    if n_classes == 0:
        raise ValueError("this model has no classes to compute a loss over; see `with_class_embeddings`")
    require_several_classes(n_classes, "a cross-entropy")
    if labels.shape != (batch,) or labels.dtype != torch.long:
        raise ValueError(f"labels must be int64 of shape [{batch}], got {labels.dtype} of shape {tuple(labels.shape)}")
    if labels.device.type == "cpu" and not ((labels >= 0) & (labels < n_classes)).all():
        raise ValueError(
            f"labels must be class indices from 0 to {n_classes - 1}, got {int(labels.min())} to {int(labels.max())}"
        )


def check_token_mask(
    mask: Tensor, batch: int, device: torch.device, cfg: HookedViTConfig, n_tokens: int | None = None
) -> None:
    """Raise ValueError unless `mask` keeps what the head reads in every image.

    `n_tokens` is the number of tokens if known; by default the layout's, or any number with dynamic image sizes.
    """
    if n_tokens is None and not cfg.dynamic_image_size:
        n_tokens = cfg.token_layout.n_tokens
    shape = (batch, mask.shape[-1] if n_tokens is None else n_tokens)
    if mask.dtype != torch.bool or mask.shape != shape:
        raise ValueError(
            f"token_mask must be bool of shape {shape} ([batch token], prefix tokens included), "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    if mask.device != device:
        raise ValueError(f"token_mask is on {mask.device}, the model on {device}")
    read = mask[:, cfg.read_tokens]
    n_prefix = cfg.token_layout.n_prefix
    if cfg.pool in ("cls", "cls_and_dist"):
        needed = "CLS" if cfg.pool == "cls" else "CLS and the distillation token"
        fits = read.all(dim=1)
    elif cfg.pool == "cls_and_mean":
        needed, fits = "CLS and at least one patch", mask[:, 0] & mask[:, n_prefix:].any(dim=1)
    else:
        needed = "at least one token" if cfg.pool_includes_prefix else "at least one patch"
        fits = read.any(dim=1)
    if not bool(fits.all()):
        image = int((~fits).nonzero()[0])
        raise ValueError(f"token_mask drops what the head reads in image {image}: keep {needed}")
