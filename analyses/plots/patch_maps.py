"""Drawing on the patch grid: the picture as the model sees it, a value for each patch, the outline of an object."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Num
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, Normalize
from matplotlib.patheffects import Normal, withStroke
from torch import Tensor

__all__ = ["draw_outline", "draw_patch_map", "draw_picture", "picture_of"]


def picture_of(
    image: Float[Tensor, "channel height width"], data_config: Mapping[str, Any]
) -> Float[np.ndarray, "height width channel"]:
    """The picture that a preprocessed image shows, 0 to 1: resized and cropped as the model sees it.

    Args:
        image: One image of what `model.preprocess` returns.
        data_config: `model.data_config`, which holds the mean and standard deviation that it was normalised with.

    >>> picture_of(torch.zeros(3, 4, 6), {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})[0, 0].tolist()
    [0.5, 0.5, 0.5]
    """
    mean, std = (torch.tensor(data_config[key], device=image.device) for key in ("mean", "std"))
    pixels = (image.float() * std[:, None, None] + mean[:, None, None]).clamp(0, 1)
    return rearrange(pixels, "channel height width -> height width channel").cpu().numpy()


def draw_picture(
    ax: Axes, picture: Num[np.ndarray, "height width channel"], grid: tuple[int, int], patch_size: tuple[int, int]
) -> None:
    """Show a picture (0 to 1, or uint8) with the lines of its patch grid; axes are in pixels."""
    height, width = picture.shape[:2]
    gray = picture[..., 0] if picture.shape[-1] == 1 else picture
    ax.imshow(gray, extent=(0, width, height, 0), interpolation="nearest", cmap="gray")
    rows, columns = (np.arange(n + 1) * size for n, size in zip(grid, patch_size, strict=True))
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
    """Fill each patch with the colour of its value; axes are in pixels, so that patches need not be square."""
    grid = (values.shape[0], values.shape[1])
    rows, columns = (np.arange(n + 1) * size for n, size in zip(grid, patch_size, strict=True))
    mesh = ax.pcolormesh(
        columns, rows, values, cmap=cmap, norm=norm, edgecolors="white", linewidth=_line_width(grid), antialiased=True
    )
    _without_frame(ax, int(rows[-1]), int(columns[-1]))
    return mesh


def draw_outline(ax: Axes, mask: Bool[Tensor, "height width"], size: Sequence[int]) -> None:
    """Outline an object over a picture or map of `size` (height, width) pixels; the mask's resolution is its own."""
    if not mask.any():
        return
    # a border of context, so that an object at the edge is closed
    inside = np.pad(mask.cpu().numpy().astype(float), 1)
    y, x = ((np.arange(-1, n + 1) + 0.5) * pixels / n for n, pixels in zip(mask.shape, size, strict=True))
    lines = ax.contour(x, y, inside, levels=[0.5], colors="black", linewidths=0.9)
    lines.set_path_effects([withStroke(linewidth=2.0, foreground="white"), Normal()])


def _line_width(grid: tuple[int, int]) -> float:
    """Points; finer on finer grids."""
    return min(0.7, 6 / max(grid))


def _without_frame(ax: Axes, height: int, width: int) -> None:
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
    for spine in ax.spines.values():
        spine.set_visible(False)
