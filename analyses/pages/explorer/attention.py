"""Attention patterns, packed for a page: as precise, and for as many tokens, as the room allows."""

from collections.abc import Iterator
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from analyses.pages.explorer.packing import packed_rows, text_length
from hooked_vit import HookedViT, ViTActivationCache

__all__ = ["attention"]

Kept = Literal["everything", "means", "prefix", "nothing"]

_LEVELS = (255, 127, 63, 31)
_MAX_NUMBERS_PER_CHARACTER = 3.0  # more numbers than this never fit, so packing them is not tried


def attention(model: HookedViT, cache: ViTActivationCache, room: int) -> dict[str, Any]:
    """The pattern of every block and head, in at most `room` characters.

    Weights are stored relative to the largest of their row, in 255, 127, 63 or 31 levels: the first that fits. The
    error of a weight is at most that largest weight / levels. If 31 levels do not fit (large models, many tokens),
    fewer rows are kept: from every token the mean over heads, from prefix tokens all heads; then prefix tokens only.

    Args:
        model: The model.
        cache: The cache of one image, with `pattern`.
        room: Number of characters.

    Returns:
        `kept`: "everything", "means", "prefix" or "nothing"; `levels`; `heads`, for each block the rows of its heads
        [head query key]; `means`, for each block the mean over heads [query key], unless everything is kept.
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
    """The parts that can be kept and the number of levels, the best first."""
    ways: list[tuple[Kept, int]] = [("everything", n_numbers), ("means", n_means)]
    if n_prefix:
        ways.append(("prefix", 0))
    for kept, numbers in ways:
        if numbers <= room * _MAX_NUMBERS_PER_CHARACTER:
            for levels in _LEVELS:
                yield kept, levels


def _rows(pattern: Float[Tensor, "head query key"], kept: Kept, n_prefix: int) -> dict[str, Tensor]:
    if kept == "everything":
        return {"heads": pattern}
    mean = pattern.mean(dim=0)
    heads = {"heads": pattern[:, :n_prefix]} if n_prefix else {}
    return {**heads, "means": mean if kept == "means" else mean[:n_prefix]}
