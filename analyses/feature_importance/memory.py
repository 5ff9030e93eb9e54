"""Run an explanation method on as many images at a time as fit into a memory budget."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from hooked_vit import HookedViT, HookedViTConfig
from hooked_vit.input_checks import require_one_grid

__all__ = ["BUDGET", "bytes_per_image", "images_within", "within_budget"]

BUDGET = 2 * 2**30
"""Bytes that a method may take for activations on a CPU; on a GPU it takes a quarter of the free memory."""

Method = TypeVar("Method", bound=Callable[..., Any])


def bytes_per_image(cfg: HookedViTConfig, n_tokens: int, *, gradients: bool = False, patterns: int = 0) -> int:
    """About how many bytes of activations a method holds per image.

    Args:
        cfg: The model's architecture.
        n_tokens: Number of tokens of the image.
        gradients: Whether a backward pass holds every block's activations.
        patterns: How many tensors of the size of the attention pattern are held per block.

    >>> cfg = HookedViT.from_pretrained("emoji-vit").cfg
    >>> bytes_per_image(cfg, n_tokens=65), bytes_per_image(cfg, n_tokens=65, gradients=True, patterns=4)
    (232960, 8020480)
    """
    per_token = 4 * cfg.d_model + cfg.d_mlp - cfg.d_mlp // 4 * (not gradients)
    if gradients:
        per_token += 6 * cfg.d_model + (3 if cfg.gated_mlp else 2) * cfg.d_mlp
    blocks = cfg.n_layers if gradients else 1
    n_elements = n_tokens * per_token * blocks + patterns * cfg.n_layers * cfg.n_heads * n_tokens**2
    return n_elements * cfg.dtype.itemsize


def images_within(
    cfg: HookedViTConfig,
    n_tokens: int,
    *,
    gradients: bool = False,
    patterns: int = 0,
    budget: float | int | None = None,
) -> int:
    """How many images fit into a budget of bytes (`BUDGET` by default), at least one."""
    if budget is None:
        budget = BUDGET
        if cfg.device.type == "cuda":
            budget = torch.cuda.mem_get_info(cfg.device)[0] / 4
    return max(1, int(budget // bytes_per_image(cfg, n_tokens, gradients=gradients, patterns=patterns)))


def within_budget(*, gradients: bool = False, patterns: int = 0) -> Callable[[Method], Method]:
    """Decorate a method so that it runs on parts of its batch, each within the budget.

    Images do not affect each other, so the parts' maps are the batch's. If one image does not fit, the error says
    which method ran out of memory and what to do.

    Args:
        gradients: As for `bytes_per_image`.
        patterns: As for `bytes_per_image`.
    """

    def wrap(method: Method) -> Method:
        @wraps(method)
        def in_parts(model: HookedViT, images: Tensor, classes: Any, **options: Any) -> Tensor:
            require_one_grid(images)
            n_tokens = images.shape[1] if images.ndim == 3 else model.cfg.token_layout_at(*images.shape[-2:]).n_tokens
            size = images_within(model.cfg, n_tokens, gradients=gradients, patterns=patterns)
            try:
                if len(images) <= size or not isinstance(classes, Tensor):
                    return method(model, images, classes, **options)
                parts = zip(images.split(size), classes.split(size), strict=True)
                return torch.cat([method(model, part, of_part, **options) for part, of_part in parts])
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                needed = bytes_per_image(model.cfg, n_tokens, gradients=gradients, patterns=patterns)
                raise MemoryError(
                    f"{method.__name__} ran out of memory: it needs about {needed / 2**30:.1f} GiB for an image of "
                    f"{n_tokens} tokens. Use a smaller image (img_size=), a method without gradients such as "
                    "importance, or another device"
                ) from error

        return in_parts  # type: ignore[return-value]

    return wrap


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
