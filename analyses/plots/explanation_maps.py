"""Maps of which patches matter: over the picture, method beside method and class below class, and block by head."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from analyses.plots.patch_maps import draw_outline, draw_patch_map, draw_picture
from hooked_vit import TokenLayout

__all__ = ["head_maps_figure", "method_maps_figure"]

_SHADE = 0.35  # how much of the picture shows through a map


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
    """Draw each method's map over the picture, a method a column and a class a row.

    Methods have scales of their own, so each map's colours go from its least to its most important patch.

    Args:
        picture: What `picture_of` returns.
        maps: For each method, by its name, the map of each class.
        class_names: The classes.
        layout: `model.token_layout`.
        patch_size: Height and width of a patch in pixels.
        masks: The object of each class, drawn as an outline in its row.
        agnostic: Names of methods whose map is the same for all classes; the heading says so.
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
        for ax, of_classes in zip(axes[row, 1:], maps.values(), strict=True):
            values = layout.to_grid(of_classes[row]).float().cpu().numpy()
            low, high = float(values.min()), float(values.max())
            draw_picture(ax, gray, layout.grid, patch_size)
            draw_patch_map(ax, values, patch_size, "viridis", Normalize(low, high if high > low else low + 1))
            ax.collections[-1].set_alpha(1 - _SHADE)
        if masks:
            for ax in axes[row]:
                draw_outline(ax, masks[row], picture.shape[:2])
    for ax, heading in zip(axes[0], ("picture", *maps), strict=True):
        same = "\n(any class)" if heading in agnostic else ""
        ax.set_title(heading.replace("_", " ") + same, fontsize="small", parse_math=False)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "viridis"), ax=list(axes.flat), ticks=[0, 1], shrink=0.8)
    bar.ax.set_yticklabels(["least", "most"], fontsize="small")
    bar.set_label("important for the class", fontsize="small")
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
    """Draw the feature importance of one image and class, a block a row and a head a column, on one scale.

    Args:
        importance: Of `feature_importance`.
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
    panel = 0.85 if n_heads > 6 else 1.0
    figure = Figure(
        figsize=(1.5 + panel * n_heads, 0.8 + panel * size[0] / size[1] * n_layers), layout="compressed", dpi=150
    )
    axes = figure.subplots(n_layers, n_heads, squeeze=False)
    # one outlier must not make all others look like nothing
    spread = float(np.quantile(importance.float().abs().cpu().numpy(), 0.995)) or 1.0
    norm = Normalize(-spread, spread)
    for row, of_layer in zip(axes, importance, strict=True):
        for ax, values in zip(row, of_layer, strict=True):
            draw_patch_map(ax, layout.to_grid(values).float().cpu().numpy(), patch_size, "PuOr_r", norm)
            if mask is not None:
                draw_outline(ax, mask, size)
    for layer, ax in enumerate(axes[:, 0]):
        ax.set_ylabel(f"block {layer}", fontsize="small")
    for head, ax in enumerate(axes[0]):
        ax.set_title(f"head {head}", fontsize="small")
    bar = figure.colorbar(
        ScalarMappable(norm, "PuOr_r"), ax=list(axes.flat), extend="both", aspect=40, shrink=min(1.0, 8 / n_layers)
    )
    bar.set_label("importance, nats for each unit of attention\n(orange speaks for the class, violet against)",
                  fontsize="small")  # fmt: skip
    bar.ax.tick_params(labelsize="small")
    if title:
        figure.suptitle(title, fontsize="medium", parse_math=False)
    return figure


def _short(name: str) -> str:
    first = name.split(",")[0].strip()
    return first if len(first) <= 20 else first[:19].rstrip() + "…"
