"""The hooks that fill a cache, and whether other hooks may change what they see."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformer_lens.utilities import Slice

from hooked_vit.activations import Computed
from hooked_vit.cache import at_tokens
from hooked_vit.config import HookedViTConfig
from hooked_vit.hook_point import HookPoint, is_only_read

__all__ = ["caching_hooks", "hook_that_may_write"]

_SMALL_PART = 8  # a view of less than this share of its storage is kept as a copy: q, k and v share one, halves too


def caching_hooks(
    cfg: HookedViTConfig,
    names: Sequence[str],
    incl_bwd: bool = False,
    device: torch.device | str | None = None,
    remove_batch_dim: bool = False,
    tokens: Slice | None = None,
    recipes: bool = False,
    store: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """A dict, the forward hooks that fill it with activations, and the backward hooks that fill it with gradients.

    Args:
        cfg: The model's.
        names: Full names of hook points.
        incl_bwd: Whether gradients are wanted.
        device: The device to keep them on.
        remove_batch_dim: Whether to keep the first image's alone, without the batch axis.
        tokens: The tokens to keep, all by default.
        recipes: Whether the dict may hold, in the place of an activation, how to compute it again.
        store: The dict, a new one by default.
    """
    filled: dict[str, Any] = {} if store is None else store

    def save(activation: Any, hook: Any, suffix: str) -> None:
        if isinstance(activation, Computed):
            recipe: Computed = activation
            filled[hook.name] = Computed(lambda: recipe()[0], recipe.holds) if remove_batch_dim else recipe
            return
        kept = activation.detach()
        kept = kept if tokens is None else at_tokens(kept, hook.name, tokens, cfg)
        is_edited = len(hook._forward_hooks) != len(hook.fwd_hooks)  # by a plain PyTorch hook, perhaps
        if is_edited or _is_small_part(kept):
            kept = kept.clone()
        kept = kept.to(device) if device is not None else kept
        filled[hook.name + suffix] = kept[0] if remove_batch_dim else kept

    read, read_gradient = partial(save, suffix=""), partial(save, suffix="_grad")
    read.only_reads = read.leaves_storage = True  # pyright: ignore[reportAttributeAccessIssue]  (see HookPoint)
    read.takes_recipes = recipes  # pyright: ignore[reportAttributeAccessIssue]
    read_gradient.leaves_storage = True  # pyright: ignore[reportAttributeAccessIssue]
    return filled, [(name, read) for name in names], [(name, read_gradient) for name in names] if incl_bwd else []


def _is_small_part(view: torch.Tensor) -> bool:
    """Whether a tensor would keep a much larger storage alive; a compiled run decides about storage itself."""
    return not torch.compiler.is_compiling() and view.nbytes * _SMALL_PART < view.untyped_storage().nbytes()


def hook_that_may_write(model: Any) -> str | None:
    """Where a hook may change an activation, or a point is kept live, in words; `None` if nowhere.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> model.add_hook(("z", 3), lambda z, hook: 0 * z)
    >>> hook_that_may_write(model)
    "'blocks.3.attn.hook_z'"
    """
    for name, module in model.named_modules():
        if isinstance(module, HookPoint):
            if not is_only_read(module):
                return f"'{name}'"
        elif module._forward_hooks or module._forward_pre_hooks:
            return f"the module '{name}'"
    return None
