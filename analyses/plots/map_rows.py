"""Maps of one number per patch, next to their pictures: one row per image, one column per quantity."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from torch import Tensor

from analyses.plots.figure import Figure
from analyses.plots.patch_maps import draw_outline, draw_patch_map, draw_picture
from hooked_vit import TokenLayout

__all__ = ["map_rows_figure"]


def map_rows_figure(
    pictures: Sequence[Float[np.ndarray, "height width channel"]],
    masks: Sequence[Bool[Tensor, "height width"]],
    maps: Mapping[str, Float[Tensor, "image patch"]],
    layout: TokenLayout,
    patch_size: tuple[int, int],
    *,
    label: str,
    limits: tuple[float | int, float | int] = (0, 1),
    names: Sequence[str] = (),
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw each picture, and each quantity as a map over its patches, all with the outline of the object.

    Args:
        pictures: Images as the model sees them (`model.picture_of`).
        masks: True on the object of each picture.
        maps: The numbers of each column, by its heading.
        layout: `model.token_layout`.
        patch_size: Height and width of a patch in pixels.
        label: The quantity, for the colour scale.
        limits: The ends of the colour scale.
        names: The name of each picture.
        title: Above the figure: which model and images.
        caption: Below the figure.

    >>> import torch
    >>> layout, maps = TokenLayout(1, 0, 0, (2, 3)), {"block 0": torch.rand(1, 6)}
    >>> masks = [torch.ones(16, 24, dtype=torch.bool)]
    >>> len(map_rows_figure([np.zeros((16, 24, 3))], masks, maps, layout, (8, 8), label="share").axes)
    3
    """
    figure = Figure(figsize=(1 + 1.75 * (1 + len(maps)), 0.7 + 1.75 * len(pictures)), layout="constrained")
    axes = figure.subplots(len(pictures), 1 + len(maps), squeeze=False)
    norm = Normalize(*limits)
    for row, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
        draw_picture(axes[row, 0], picture, layout.grid, patch_size)
        if names:
            axes[row, 0].set_ylabel(names[row], fontsize="small", parse_math=False)
        for ax, values in zip(axes[row, 1:], maps.values(), strict=True):
            draw_patch_map(ax, layout.to_grid(values[row]).cpu().numpy(), patch_size, "cividis", norm)
        for ax in axes[row]:
            draw_outline(ax, mask, picture.shape[:2])
    for ax, heading in zip(axes[0], ("picture", *maps), strict=True):
        ax.set_title(heading, fontsize="small", parse_math=False)
    figure.colorbar(ScalarMappable(norm, "cividis"), ax=list(axes.flat), label=label, shrink=0.8)
    if title:
        figure.suptitle(title, fontsize="medium", parse_math=False)
    if caption:
        figure.supxlabel(caption, fontsize="small")
    return figure
