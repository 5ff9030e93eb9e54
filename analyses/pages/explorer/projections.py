"""Top classes at every token of every block, and the rank and logit of some classes, packed for a page."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.pages.explorer.packing import packed, packed_linear
from analyses.projection import Stream, class_ranks
from hooked_vit import HookedViT, ViTActivationCache

__all__ = ["EXPLORED_STREAMS", "projections"]

EXPLORED_STREAMS: tuple[Stream, ...] = ("resid_post", "attn_out", "mlp_out")
"""The streams that a page shows."""

CHUNK_ELEMENTS = 2**23
"""Logits in memory at a time."""

_TOP = 5


@torch.no_grad()
def projections(model: HookedViT, cache: ViTActivationCache, classes: Sequence[int]) -> dict[str, Any]:
    """Project each stream onto the classes, as `analyses.projection.project` does, every vector once.

    Args:
        model: The model.
        cache: The cache of one image, with the hook points of `EXPLORED_STREAMS`.
        classes: The classes whose rank and logit are stored, by index.

    Returns:
        `top_classes`, `top_logits` [stream layer token k], `rank`, `logit` [stream layer token chosen]. Logits are
        stored in 65,536 steps over their range.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in ("top_classes", "top_logits", "rank", "logit")}
    chosen, shape = torch.tensor(classes, device=model.cfg.device), ()
    for stream in EXPLORED_STREAMS:
        for layer in range(model.cfg.n_layers):
            vectors = cache[f"blocks.{layer}.hook_{stream}"][0].to(model.cfg.device)
            shape = (len(EXPLORED_STREAMS), model.cfg.n_layers, len(vectors), -1)
            for rows in vectors.split(max(1, CHUNK_ELEMENTS // model.cfg.n_classes)):
                class_logits = model.class_logits(rows)
                tops = class_logits.topk(min(_TOP, model.cfg.n_classes))
                parts["top_classes"].append(tops.indices)
                parts["top_logits"].append(tops.values)
                parts["rank"].append(_ranks(class_logits, chosen))
                parts["logit"].append(class_logits[:, chosen])
    joined = {name: torch.cat(rows).reshape(shape) for name, rows in parts.items()}
    return {
        name: packed_linear(values) if name.endswith(("logit", "logits")) else packed(values)
        for name, values in joined.items()
    }


def _ranks(class_logits: Float[Tensor, "row n_classes"], chosen: Int[Tensor, "chosen"]) -> Int[Tensor, "row chosen"]:
    ranks = [class_ranks(class_logits, label.expand(len(class_logits))) for label in chosen]
    return torch.stack(ranks, dim=-1)
