"""The most active memories at every token of every block, and their top classes, packed for a page."""

from typing import Any, get_args

import torch
from torch import Tensor

from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.pages.explorer.packing import packed, packed_linear
from analyses.value_vectors.vectors import MemorySublayer, value_logits
from hooked_vit import HookedViT, ViTActivationCache

__all__ = ["most_active_memories"]

_MEMORIES = 5
_CLASSES = 3


@torch.no_grad()
def most_active_memories(model: HookedViT, cache: ViTActivationCache) -> dict[str, dict[str, Any]]:
    """For MLP and attention, the memories with the largest coefficients, and the top classes of their value vectors.

    Args:
        model: The model.
        cache: The cache of one image, with the hook points of `coefficient_names` for `"post"` coefficients, which
            multiply the value vectors.

    Returns:
        By sub-layer: `memory`, `coefficient` [layer token memory], `classes`, `logits` [layer token memory class].
    """
    return {sublayer: _sublayer_memories(model, cache, sublayer) for sublayer in get_args(MemorySublayer)}


def _sublayer_memories(model: HookedViT, cache: ViTActivationCache, sublayer: MemorySublayer) -> dict[str, Any]:
    parts: dict[str, list[Tensor]] = {name: [] for name in ("memory", "coefficient", "classes", "logits")}
    for layer in range(model.cfg.n_layers):
        coefficients = memory_coefficients(model, cache, layer, sublayer, "post")[0]
        active = coefficients.topk(min(_MEMORIES, coefficients.shape[-1]))
        tops = value_logits(model, layer, sublayer).topk(min(_CLASSES, model.cfg.n_classes))
        parts["memory"].append(active.indices)
        parts["coefficient"].append(active.values)
        parts["classes"].append(tops.indices[active.indices])
        parts["logits"].append(tops.values[active.indices])
    stacked = {name: torch.stack(values) for name, values in parts.items()}
    return {
        name: packed_linear(values) if values.is_floating_point() else packed(values)
        for name, values in stacked.items()
    }
