"""The data of an explorer page: everything that it shows of one picture, or of two."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.pages.explorer.attention import attention
from analyses.pages.explorer.classes import choose_classes
from analyses.pages.explorer.memories import N_ADDING
from analyses.pages.explorer.patches import patching_effects
from analyses.pages.explorer.projections import EXPLORED_STREAMS
from analyses.pages.explorer.run import explored_run, run_data
from hooked_vit import HookedViT, TokenLayout

__all__ = ["ROOM", "explorer_data"]

ROOM = 7_300_000
"""Characters that a page's data may take: the page is under 8 MB with the picture, the script and the markup."""

# numbers, of all classes and pictures together
_ROOM_FOR_RANKS = 750_000
_ROOM_FOR_IMPORTANCE = 800_000
_ROOM_FOR_MEMORIES = 300_000


@torch.no_grad()
def explorer_data(
    model: HookedViT,
    images: Float[Tensor, "picture channel height width"],
    asked: Sequence[int] = (),
    room: int = ROOM,
    *,
    patching: bool = False,
    progress: bool | None = False,
) -> dict[str, Any]:
    """The data that the script of `explorer.html` reads, ready for JSON.

    Args:
        model: Any model with classes.
        images: One preprocessed image, or two.
        asked: Classes that the page must show, by index.
        room: Number of characters.
        patching: Whether to patch the first picture's activations into the second picture's run.
        progress: Whether to show how far patching is; `None` shows it if standard error is a terminal.

    Raises:
        ValueError: If the model has no classes or a single one, or does not accept the images; or if patching has no
            difference to restore.

    >>> data = explorer_data(HookedViT.from_pretrained("emoji-vit"), torch.zeros(1, 3, 64, 64), asked=[3])
    >>> data["grid"], data["prefix"], data["shown"][0], data["runs"][0]["attention"]["kept"]
    ([8, 8], ['CLS'], 3, 'everything')
    """
    cfg = model.cfg
    model.require_several_classes("an explorer page, which shows ranks,")
    runs = [explored_run(model, image[None]) for image in images]
    layout = cfg.token_layout_at(*images.shape[-2:])
    per_class = len(runs) * cfg.n_layers * layout.n_tokens
    choice = choose_classes(
        torch.stack([run.logits for run in runs]),
        asked,
        room_for=_ROOM_FOR_RANKS // (len(EXPLORED_STREAMS) * per_class),
        room_for_leading=_ROOM_FOR_IMPORTANCE
        // (len(runs) * (cfg.n_layers + 1) * (cfg.n_heads + 1) * layout.n_patches),
        room_for_remembered=_ROOM_FOR_MEMORIES // (N_ADDING * per_class),
    )
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
        "n_remembered": len(choice.remembered),
        "n_asked": choice.asked,
        "patching": _patching(model, images, asked, progress) if patching else None,
        "runs": [run_data(model, run, choice.shown, choice.leading, choice.remembered) for run in runs],
    }
    left = (room - len(json.dumps(data))) // len(runs)
    for run, found in zip(runs, data["runs"], strict=True):
        found["attention"] = attention(model, run.cache, left)
    return data


def _patching(model: HookedViT, images: Tensor, asked: Sequence[int], progress: bool | None) -> dict[str, Any]:
    """Between the first two classes asked for; else the first picture's class against the second's."""
    first, second = model(images).argmax(dim=-1).tolist()
    label, against = [*asked[:2], *[first, second][len(asked[:2]) :]]
    return patching_effects(model, images, label, None if against == label else against, progress=progress)


def _prefix_names(layout: TokenLayout) -> list[str]:
    words = {"cls": "CLS", "dist": "Distillation"}
    first_register = layout.registers.start
    return [
        words.get(kind) or f"Register {position - first_register + 1}"
        for position, kind in enumerate(layout.token_types[: layout.n_prefix])
    ]
