"""Maps of which patches matter: over the picture, by method and class; and by block and head."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from torch import Tensor

from analyses.plots.figure import Figure
from analyses.plots.patch_maps import colour_range, draw_outline, draw_patch_map, draw_picture
from hooked_vit import TokenLayout

__all__ = ["METHOD_NAMES", "head_maps_figure", "method_maps_figure", "method_name"]

METHOD_NAMES = {
    "gradient_attention": "gradient × attention",
    "grad_cam": "Grad-CAM",
}
"""The explanation methods in words, where underscores as spaces are not enough."""


_OPACITY = 0.65  # of a map over the picture
_CLIPPED = 0.005  # share of the values beyond either end of the scale of heads


def method_name(method: str) -> str:
    """The method in words, for figures.

    >>> method_name("grad_cam"), method_name("raw_attention")
    ('Grad-CAM', 'raw attention')
    """
    return METHOD_NAMES.get(method, method.replace("_", " "))


def method_maps_figure(
    picture: Float[np.ndarray, "height width channel"],
    maps: Mapping[str, Float[Tensor, "chosen patch"]],
    class_names: Sequence[str],
    layout: TokenLayout,
    patch_size: tuple[int, int],
    *,
    masks: Sequence[Bool[Tensor, "height width"]] = (),
    agnostic: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """Draw each method's map over the picture, one column per method and one row per class.

    Each map has its own scale, from its least to its most important patch. If a few patches would dominate the scale,
    it ends at the 2nd or 98th percentile instead, and a note under the map says so. A map that is zero everywhere is
    drawn all dark, and a note says that, too.

    Args:
        picture: The image as the model sees it (`model.picture_of`).
        maps: By the name of the method, the map of each class.
        class_names: The classes.
        layout: `model.token_layout`.
        patch_size: Height and width of a patch in pixels.
        masks: The object of each class, drawn as an outline in its row.
        agnostic: Names of methods whose map is the same for all classes; their headings say so.
        title: Above the figure.

    >>> import torch
    >>> layout, maps = TokenLayout(1, 0, 0, (2, 3)), {"importance": torch.rand(2, 6), "random": torch.rand(2, 6)}
    >>> len(method_maps_figure(np.zeros((16, 24, 3)), maps, ["cat", "dog"], layout, (8, 8)).axes)
    7
    """
    n_rows, n_columns = len(class_names), 1 + len(maps)
    height = 1.45 * picture.shape[0] / picture.shape[1]
    figure = Figure(figsize=(0.9 + 1.45 * n_columns, 0.75 + max(1.1, height) * n_rows), layout="constrained", dpi=150)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    gray = np.repeat(picture.mean(axis=-1, keepdims=True), 3, axis=-1)
    for row, name in enumerate(class_names):
        draw_picture(axes[row, 0], picture, layout.grid, patch_size)
        axes[row, 0].set_ylabel(_short(name), fontsize="small", parse_math=False)
        for ax, method_maps in zip(axes[row, 1:], maps.values(), strict=True):
            values = layout.to_grid(method_maps[row]).float().cpu().numpy()
            ends = colour_range(values)
            draw_picture(ax, gray, layout.grid, patch_size)
            mesh = draw_patch_map(ax, values, patch_size, "viridis", Normalize(ends.low, ends.high))
            mesh.set_alpha(_OPACITY)
            note = ends.note if values.any() else "zero everywhere"
            if note:
                ax.set_xlabel(note, fontsize="xx-small", labelpad=2)
        if masks:
            for ax in axes[row]:
                draw_outline(ax, masks[row], picture.shape[:2])
    for ax, heading in zip(axes[0], ("picture", *maps), strict=True):
        note = "\n(any class)" if heading in agnostic else ""
        ax.set_title(method_name(heading) + note, fontsize="small", parse_math=False)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "viridis"), ax=list(axes.flat), ticks=[0, 1], shrink=0.8)
    bar.ax.set_yticklabels(["least", "most"], fontsize="small")
    bar.set_label("importance for the class\n(one scale per map)", fontsize="small")
    if title:
        figure.suptitle(title, fontsize="medium", parse_math=False)
    return figure


def head_maps_figure(
    importance: Float[Tensor, "layer head patch"],
    layout: TokenLayout,
    patch_size: tuple[int, int],
    *,
    mask: Bool[Tensor, "height width"] | None = None,
    title: str = "",
) -> Figure:
    """Draw the feature importance of one image and class, one row per block and one column per head, on one scale.

    The scale ends at the 99.5th percentile of the magnitudes.

    Args:
        importance: Of one image, from `feature_importance`.
        layout: `model.token_layout`.
        patch_size: Height and width of a patch in pixels.
        mask: The object, drawn as an outline.
        title: Above the figure.

    >>> import torch
    >>> len(head_maps_figure(torch.randn(3, 2, 6), TokenLayout(1, 0, 0, (2, 3)), (8, 8)).axes)
    7
    """
    n_layers, n_heads = importance.shape[:2]
    size = layout.grid[0] * patch_size[0], layout.grid[1] * patch_size[1]
    # tall pictures get narrower panels, so that the figure fits a page
    panel = min(0.85 if n_heads > 6 else 1.0, 1.1 * size[1] / size[0])
    height = 0.7 + 1.05 * panel * size[0] / size[1] * n_layers
    bar_height = min(height - 0.7, 4.0)
    figure = Figure(figsize=(2.0 + 1.05 * panel * n_heads, height), layout="compressed", dpi=150)
    axes = figure.subplots(n_layers, n_heads, squeeze=False)
    spread = float(np.quantile(importance.float().abs().cpu().numpy(), 1 - _CLIPPED)) or 1.0
    norm = Normalize(-spread, spread)
    for row, layer_maps in zip(axes, importance, strict=True):
        for ax, values in zip(row, layer_maps, strict=True):
            draw_patch_map(ax, layout.to_grid(values).float().cpu().numpy(), patch_size, "PuOr_r", norm)
            if mask is not None:
                draw_outline(ax, mask, size)
    for layer, ax in enumerate(axes[:, 0]):
        ax.set_ylabel(f"block {layer}", fontsize="small")
    for head, ax in enumerate(axes[0]):
        ax.set_title(f"head {head}", fontsize="small")
    bar = figure.colorbar(
        ScalarMappable(norm, "PuOr_r"), ax=list(axes.flat), extend="both", aspect=bar_height / 0.12,
        shrink=bar_height / height,
    )  # fmt: skip
    bar.set_label(
        "importance, nats per unit of attention\n"
        "(orange supports the class, violet opposes it;\nscale clipped at the 99.5th percentile)",
        fontsize="small",
    )
    bar.ax.tick_params(labelsize="small")
    if title:
        figure.suptitle(title, fontsize="medium", parse_math=False)
    return figure


def _short(name: str) -> str:
    first = name.split(",")[0].strip()
    return first if len(first) <= 20 else first[:19].rstrip() + "…"
