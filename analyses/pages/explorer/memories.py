"""The memories that write most to each token, and those that write most of a class, packed for a page."""

from collections.abc import Sequence
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.pages.explorer.packing import packed, packed_linear
from analyses.value_vectors.vectors import MemorySublayer, value_logits
from hooked_vit import HookedViT, ViTActivationCache

__all__ = ["N_ADDING", "active_memories"]

_N_FIRED = 5
_N_FOR, _N_AGAINST = 4, 2
_N_TOP_CLASSES = 3

N_ADDING = 2 * (_N_FOR + _N_AGAINST)
"""Entries for each token and block that a class takes."""


@torch.no_grad()
def active_memories(model: HookedViT, cache: ViTActivationCache, classes: Sequence[int]) -> dict[str, dict[str, Any]]:
    """For MLP and attention, the memories that fire most, and those that add most to a class or take most from it.

    A memory adds its coefficient times its value vector's logit for the class: value vectors carry LayerScale, and are
    projected without norm and bias.

    Args:
        model: The model.
        cache: The cache of one image, with the hook points of `coefficient_names` for `"post"` coefficients, which
            multiply the value vectors.
        classes: By index.

    Returns:
        By sub-layer: the memories of block b that occur are `used[start[b] : start[b + 1]]`, with `classes`
        [used place], the top classes of their value vectors, and `logits` [used chosen]. The others are positions in
        this part of `used`: `fired` [layer token place], the largest coefficients, and `adding`
        [layer token chosen place], the largest additions, then the smallest; with `fired_coefficient` and
        `adding_coefficient`.
    """
    return {sublayer: _of_sublayer(model, cache, sublayer, classes) for sublayer in get_args(MemorySublayer)}


def _of_sublayer(
    model: HookedViT, cache: ViTActivationCache, sublayer: MemorySublayer, classes: Sequence[int]
) -> dict[str, Any]:
    names = ("used", "classes", "logits", "fired", "fired_coefficient", "adding", "adding_coefficient")
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    start = [0]
    for layer in range(model.cfg.n_layers):
        coefficients = memory_coefficients(model, cache, layer, sublayer, "post")[0].float()
        all_logits = value_logits(model, layer, sublayer, layer_scale=True).float()
        class_logits = all_logits[:, list(classes)]
        fired = coefficients.topk(min(_N_FIRED, coefficients.shape[-1])).indices
        adding = torch.stack([_most_and_least(coefficients * logits) for logits in class_logits.T], dim=1)
        used, positions = torch.cat([fired.flatten(), adding.flatten()]).unique(return_inverse=True)
        parts["used"].append(used)
        parts["classes"].append(all_logits[used].topk(min(_N_TOP_CLASSES, model.cfg.n_classes)).indices)
        parts["logits"].append(class_logits[used])
        parts["fired"].append(positions[: fired.numel()].view_as(fired))
        parts["fired_coefficient"].append(coefficients.gather(1, fired))
        parts["adding"].append(positions[fired.numel() :].view_as(adding))
        parts["adding_coefficient"].append(coefficients.gather(1, adding.flatten(1)).view_as(adding))
        start.append(start[-1] + len(used))
    by_memory = ("used", "classes", "logits")
    joined = {name: torch.cat(some) if name in by_memory else torch.stack(some) for name, some in parts.items()}
    return {"start": start} | {
        name: packed_linear(values) if values.is_floating_point() else packed(values) for name, values in joined.items()
    }


def _most_and_least(additions: Float[Tensor, "token memory"]) -> Tensor:
    """[token place]: the memories of the largest additions, largest first, then of the smallest, smallest last."""
    n_memories = additions.shape[-1]
    n_most = min(_N_FOR, n_memories)
    most = additions.topk(n_most).indices
    least = additions.topk(min(_N_AGAINST, n_memories - n_most), largest=False).indices.flip(-1)
    return torch.cat([most, least], dim=-1)
