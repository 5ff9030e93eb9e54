"""The intervention that moves neurons from all tokens to registers: test-time registers."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooked_vit.interventions.replacing import Intervention
from hooked_vit.interventions.selection import Indices, Tokens, check_tokens, select_indices, select_tokens, token_group
from hooked_vit.model import HookedViT


def move_neurons(model: HookedViT, neurons: Mapping[int, Indices], to: Tokens | None = None) -> Intervention:
    """Move the activations of some neurons to registers (Jiang et al. 2025, section 4: test-time registers).

    In each image, a neuron (at `hook_post`) is set to its largest activation over the patches at the registers, and to
    zero at all other tokens. Largest means largest in size, with its sign kept: a neuron of a gated MLP can write an
    outlier with a negative activation. Padding is not a patch: neither that of sequences, nor that of images of which a
    `token_mask` keeps fewer tokens than of others. No weight changes.

    Args:
        model: A model with added registers: `model.with_registers(1)`; or any model, with `to`.
        neurons: The neurons of each block; negative blocks count from the end.
        to: The tokens to move them to, as for `Selection.tokens`; the added registers by default.

    Raises:
        ValueError: If there is no such block, neuron or token, or the model has no added register.

    >>> model = HookedViT.from_pretrained("emoji-vit").with_registers()
    >>> hooks = move_neurons(model, {2: [5, 7], -1: [0]})
    >>> _, cache = model.run_with_cache(torch.randn(1, 3, 64, 64), names_filter=("post", 2))
    >>> with model.hooks(fwd_hooks=hooks):
    ...     _, moved = model.run_with_cache(torch.randn(1, 3, 64, 64), names_filter=("post", 2))
    >>> int(moved["post", 2][..., 5].count_nonzero()), model.token_layout.registers
    (1, slice(1, 2, None))
    """
    if not neurons:
        raise ValueError("expected neurons to move, as {block: neurons}, got none")
    if to is None:
        to = _added_registers(model)
    check_tokens(to, model.cfg, "to")
    hooks: Intervention = []
    for layer, chosen in neurons.items():
        names = model.hook_names([("post", layer)])
        index = select_indices(chosen, model.cfg.d_mlp, "neurons").nonzero()[:, 0]
        hooks += [(name, _Move(model, index, to)) for name in names]
    return hooks


class _Move:
    def __init__(self, model: HookedViT, index: Int[Tensor, "chosen"], to: Any):
        self.layout, self.index, self.to = model.token_layout, index, to

    def __call__(self, post: Float[Tensor, "batch token neuron"], hook: Any) -> Float[Tensor, "batch token neuron"]:
        n_tokens, index = post.shape[1], self.index.to(post.device)
        target = select_tokens(self.to, self.layout, n_tokens, "to", n_images=len(post)).to(post.device)
        if hook.tokens.kept is None:
            patches = token_group(self.layout, "patch", n_tokens).to(post.device)
        else:
            patches = hook.tokens.kept.is_patch  # not padding, which has activations as well
        on_patches = post[..., index].masked_fill(~patches[..., None], 0)
        largest = on_patches.gather(1, on_patches.abs().argmax(dim=1, keepdim=True))
        moved = post.clone()
        moved[..., index] = torch.where(target[..., None], largest, torch.zeros_like(largest))
        return moved


def _added_registers(model: HookedViT) -> slice:
    n_added, n_prefix = model.cfg.n_added_registers, model.token_layout.n_prefix
    if not n_added:
        raise ValueError(
            "this model has no added register to move neurons to: `model.with_registers(1)` adds one, or say which "
            "tokens with to="
        )
    return slice(n_prefix - n_added, n_prefix)
