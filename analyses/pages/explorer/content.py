"""The data of an explorer page: everything that it shows of one picture, from one forward pass."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.feature_importance.importance import importance_names
from analyses.memory_pairs.coefficients import coefficient_names
from analyses.pages.explorer.attention import attention
from analyses.pages.explorer.classes import choose_classes
from analyses.pages.explorer.contributions import contribution_names, contributions
from analyses.pages.explorer.importance import importances
from analyses.pages.explorer.memories import most_active_memories
from analyses.pages.explorer.projections import EXPLORED_STREAMS, projections
from analyses.projection import stream_names
from hooked_vit import HookedViT, TokenLayout

__all__ = ["ROOM", "explorer_data", "explorer_names"]

ROOM = 7_300_000
"""Characters that a page's data may take: the page is under 8 MB with the picture, the script and the markup."""

_ROOM_FOR_IMPORTANCE = 800_000  # numbers


@torch.no_grad()
def explorer_data(
    model: HookedViT, image: Float[Tensor, "1 channel height width"], asked: Sequence[int] = (), room: int = ROOM
) -> dict[str, Any]:
    """The data that the script of `explorer.html` reads, ready for JSON.

    Args:
        model: Any model with classes.
        image: One preprocessed image.
        asked: Classes that the page must show, by index.
        room: Number of characters.

    Raises:
        ValueError: If the model has no classes or a single one, or does not accept the image.

    >>> data = explorer_data(HookedViT.from_pretrained("emoji-vit"), torch.zeros(1, 3, 64, 64), asked=[3])
    >>> data["grid"], data["prefix"], data["shown"][0], data["attention"]["kept"]
    ([8, 8], ['CLS'], 3, 'everything')
    """
    cfg = model.cfg
    model.require_several_classes("an explorer page, which shows ranks,")
    logits, cache = model.run_with_cache(image, names_filter=explorer_names(model))
    layout = cfg.token_layout_at(*image.shape[-2:])
    per_class = (cfg.n_layers + 1) * (cfg.n_heads + 1) * layout.n_patches
    choice = choose_classes(logits[0], asked, room_for=_ROOM_FOR_IMPORTANCE // per_class)
    best = logits[0].softmax(-1).topk(min(5, cfg.n_classes))
    data = {
        "grid": list(layout.grid),
        "prefix": _prefix_names(layout),
        "n_layers": cfg.n_layers,
        "n_heads": cfg.n_heads,
        "d_head": cfg.d_head,
        "n_classes": cfg.n_classes,
        "pool": cfg.pool,
        "class_names": list(model.class_names),
        "streams": list(EXPLORED_STREAMS),
        "shown": list(choice.shown),
        "n_leading": len(choice.leading),
        "n_asked": choice.asked,
        "predicted": [list(pair) for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)],
        "projections": projections(model, cache, choice.shown),
        "importance": importances(model, cache, choice.leading),
        "contributions": contributions(model, cache, choice.leading),
        "memories": most_active_memories(model, cache),
    }
    return {**data, "attention": attention(model, cache, room - len(json.dumps(data)))}


def explorer_names(model: HookedViT) -> list[str]:
    """The hook points that all parts of a page read.

    >>> "blocks.7.attn.hook_pattern" in explorer_names(HookedViT.from_pretrained("emoji-vit"))
    True
    """
    cfg = model.cfg
    names = [name for stream in EXPLORED_STREAMS for name in stream_names(cfg, stream)]
    names += importance_names(cfg) + contribution_names(model)
    names += coefficient_names(cfg, "mlp", "post") + coefficient_names(cfg, "attn", "post")
    names += [f"blocks.{layer}.attn.hook_pattern" for layer in range(cfg.n_layers)]
    return list(dict.fromkeys(names))


def _prefix_names(layout: TokenLayout) -> list[str]:
    words = {"cls": "CLS", "dist": "Distillation"}
    first_register = layout.registers.start
    return [
        words.get(kind) or f"Register {position - first_register + 1}"
        for position, kind in enumerate(layout.token_types[: layout.n_prefix])
    ]
