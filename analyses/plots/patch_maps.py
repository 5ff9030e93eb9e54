"""Drawing on the patch grid: the picture as the model sees it, one value per patch, the outline of an object."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Num
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, Normalize
from matplotlib.patheffects import Normal, withStroke
from torch import Tensor

__all__ = ["ColourRange", "colour_range", "draw_outline", "draw_patch_map", "draw_picture"]

FINEST_LINED_GRID = 20
"""Patches along the longer side of the finest grid that is drawn with lines; on finer ones, lines hide the content."""

_INNER = 0.96  # share of the values that a clipped range keeps


@dataclass(frozen=True)
class ColourRange:
    """The values at the two ends of a colour scale.

    Attributes:
        low: At the lower end.
        high: At the upper end.
        note: Where the scale is clipped, so that values beyond an end have the end's colour; "" if it is not.
    """

    low: float
    high: float
    note: str = ""


def colour_range(values: Num[np.ndarray, "*axes"]) -> ColourRange:
    """The range of a colour scale that a few extreme values cannot dominate.

    From the smallest to the largest value; but an end is clipped to the 2nd or 98th percentile if the values beyond
    it would take up more of the scale than all others. NaN is ignored.

    >>> colour_range(np.arange(100.0))
    ColourRange(low=0.0, high=99.0, note='')
    >>> colour_range(np.append(np.arange(100.0), 1000.0))
    ColourRange(low=0.0, high=98.0, note='clipped at the 98th percentile')
    """
    finite = values[np.isfinite(values)].astype(float)
    if not finite.size:
        return ColourRange(0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    tail = (1 - _INNER) / 2
    inner_low = float(np.quantile(finite, tail, method="higher"))
    inner_high = float(np.quantile(finite, 1 - tail, method="lower"))
    inner = inner_high - inner_low
    clip_low, clip_high = 0 < inner < inner_low - low, 0 < inner < high - inner_high
    if low == high:  # matplotlib needs a range
        return ColourRange(low, low + 1)
    note = {
        (False, False): "",
        (True, False): "clipped at the 2nd percentile",
        (False, True): "clipped at the 98th percentile",
        (True, True): "clipped at 2nd, 98th percentile",
    }[clip_low, clip_high]
    return ColourRange(inner_low if clip_low else low, inner_high if clip_high else high, note)


def draw_picture(
    ax: Axes, picture: Num[np.ndarray, "height width channel"], grid: tuple[int, int], patch_size: tuple[int, int]
) -> None:
    """Show a picture (0 to 1, or uint8) with the lines of its patch grid, unless that is fine; axes are in pixels."""
    height, width = picture.shape[:2]
    white = 255 if picture.dtype == np.uint8 else 1
    gray = picture[..., 0] if picture.shape[-1] == 1 else picture
    ax.imshow(gray, extent=(0, width, height, 0), interpolation="nearest", cmap="gray", vmin=0, vmax=white)
    rows, columns = (np.arange(n + 1) * size for n, size in zip(grid, patch_size, strict=True))
    if _line_width(grid):
        style: dict[str, Any] = {"color": "white", "linewidth": _line_width(grid), "alpha": 0.6}
        ax.vlines(columns, 0, rows[-1], **style)
        ax.hlines(rows, 0, columns[-1], **style)
    _without_frame(ax, int(rows[-1]), int(columns[-1]))


def draw_patch_map(
    ax: Axes,
    values: Num[np.ndarray, "row column"],
    patch_size: tuple[int, int],
    cmap: str | Colormap,
    norm: Normalize,
) -> QuadMesh:
    """Fill each patch with the colour of its value; axes are in pixels, so patches need not be square.

    White lines separate the patches, unless the grid is fine.
    """
    grid = (values.shape[0], values.shape[1])
    rows, columns = (np.arange(n + 1) * size for n, size in zip(grid, patch_size, strict=True))
    width = _line_width(grid)
    lines: dict[str, Any] = {"edgecolors": "white", "linewidth": width, "antialiased": True} if width else {}
    mesh = ax.pcolormesh(columns, rows, values, cmap=cmap, norm=norm, **lines)
    _without_frame(ax, int(rows[-1]), int(columns[-1]))
    return mesh


def draw_outline(ax: Axes, mask: Bool[Tensor, "height width"], size: Sequence[int]) -> None:
    """Outline an object over a picture or map of `size` (height, width) pixels; the mask's resolution is its own."""
    if not mask.any():
        return
    # a border of context closes the outline of an object at the edge
    inside = np.pad(mask.cpu().numpy().astype(float), 1)
    y, x = ((np.arange(-1, n + 1) + 0.5) * pixels / n for n, pixels in zip(mask.shape, size, strict=True))
    lines = ax.contour(x, y, inside, levels=[0.5], colors="black", linewidths=0.9)
    lines.set_path_effects([withStroke(linewidth=2.0, foreground="white"), Normal()])


def _line_width(grid: tuple[int, int]) -> float:
    """Points; thinner on finer grids, and 0, no lines, on the finest."""
    return min(0.7, 6 / max(grid)) if max(grid) <= FINEST_LINED_GRID else 0.0


def _without_frame(ax: Axes, height: int, width: int) -> None:
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
    for spine in ax.spines.values():
        spine.set_visible(False)
