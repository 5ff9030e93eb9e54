"""Attention patterns, packed for a page: as precisely, and of as many tokens, as there is room for."""

from collections.abc import Iterator
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from analyses.pages.explorer.packing import packed_rows, text_length
from hooked_vit import HookedViT, ViTActivationCache

__all__ = ["attention"]

Kept = Literal["everything", "means", "prefix", "nothing"]

_LEVELS = (255, 127, 63, 31)
_BEYOND_HOPE = 3.0  # more characters than this for each number that a page could hold: not worth trying


def attention(model: HookedViT, cache: ViTActivationCache, room: int) -> dict[str, Any]:
    """The pattern of every block and head, in at most `room` characters.

    Weights are stored relative to the largest of their row, the most precise first of 255, 127, 63 or 31 levels, each
    wrong by that largest weight / levels at most. Where not even that fits (large models, many tokens), fewer rows
    are kept: the mean over heads from all tokens, with heads apart from prefix tokens alone; then prefix tokens only.

    Args:
        model: The model.
        cache: Of one image, with `pattern`.
        room: In characters.

    Returns:
        `kept`: "everything", "means", "prefix" or "nothing"; `levels`; `heads`, for each block the heads' rows [head
        query key]; `means`, for each block the mean over heads [query key], unless everything is kept.
    """
    layers, n_prefix = range(model.cfg.n_layers), model.token_layout.n_prefix
    n_numbers = sum(cache["pattern", layer][0].numel() for layer in layers)
    for kept, levels in _ways(n_numbers, n_numbers // model.cfg.n_heads, n_prefix, room):
        parts: dict[str, list[dict[str, Any]]] = {"heads": [], "means": []}
        left = room
        for layer in layers:
            for name, rows in _rows(cache["pattern", layer][0].float(), kept, n_prefix).items():
                parts[name].append(packed_rows(rows, levels))
                left -= text_length(parts[name][-1])
            if left < 0:
                break
        else:
            return {"kept": kept, "levels": levels, **parts}
    return {"kept": "nothing", "levels": 0, "heads": [], "means": []}


def _ways(n_numbers: int, n_means: int, n_prefix: int, room: int) -> Iterator[tuple[Kept, int]]:
    """What can be kept and how precisely, the best first."""
    ways: list[tuple[Kept, int]] = [("everything", n_numbers), ("means", n_means)]
    if n_prefix:
        ways.append(("prefix", 0))
    for kept, numbers in ways:
        if numbers <= room * _BEYOND_HOPE:
            for levels in _LEVELS:
                yield kept, levels


def _rows(pattern: Float[Tensor, "head query key"], kept: Kept, n_prefix: int) -> dict[str, Tensor]:
    if kept == "everything":
        return {"heads": pattern}
    mean = pattern.mean(dim=0)
    heads = {"heads": pattern[:, :n_prefix]} if n_prefix else {}
    return {**heads, "means": mean if kept == "means" else mean[:n_prefix]}
