"""Categorical updates over blocks as figures: which sub-layer moves tokens towards their class, and how far."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from analyses.plots.curves import (
    BLUE,
    GREY,
    SUBLAYER_STYLES,
    TOKEN_STYLES,
    draw_curve,
    finish_figure,
    finish_panel,
    rows_of,
    tokens_in,
)
from analyses.plots.figure import Figure

__all__ = ["categorical_updates_figure", "head_updates_figure"]

_SUBLAYERS = {"attn_out": ("attention", "-"), "mlp_out": ("MLP", "--")}
_PARTS: dict[str, dict[str, Any]] = {
    "previous": {"label": "block's input", "color": BLUE, "marker": "s"},
    "attn": SUBLAYER_STYLES["attn_out"],
    "mlp": SUBLAYER_STYLES["mlp_out"],
    "none": {"label": "none of the three", "color": "black", "marker": "x"},
}


def categorical_updates_figure(table: pd.DataFrame, reference: str = "block_input", *, title: str = "") -> Figure:
    """Draw the table of `CategoricalUpdates` (the paper's section 5.1); bands are intervals over images.

    Parts of the residual stream may agree with each other, so their percentages do not add up to 100: they are curves
    here, not stacked bars as in the paper. The panel of images classified correctly and wrongly is left out if the
    table has too few of either.

    Args:
        table: `CategoricalUpdates().compute()`.
        reference: The input that sub-layers' outputs are compared with.
        title: Above the figure: which model and images.

    >>> from analyses.categorical_updates import CategoricalUpdates
    >>> from analyses.data import EmojiScenes
    >>> from analyses.sweep import sweep
    >>> from hooked_vit import HookedViT
    >>> tables = sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(8, 0), [CategoricalUpdates()])
    >>> len(categorical_updates_figure(tables["categorical_updates"]).axes)
    5
    """
    kinds = [kind for kind in tokens_in(table, regions=False) if kind[0] in ("cls", "patch")]
    updates = rows_of(table, reference=reference)
    correctness = rows_of(updates, images="correct_minus_wrong", metric="similarity_increase")
    panels = [["rate", "size"] + ["correctness"] * (not correctness.empty), [token_type for token_type, _ in kinds]]
    n_columns = max(len(panels[0]), len(panels[1]) + 1)
    # the legend fills the slots that no panel needs
    slots: list[Any] = [row + ["legend"] * (n_columns - len(row)) for row in panels]
    figure = Figure(figsize=(3.67 * n_columns, 6.4), layout="constrained")
    axes: dict[str, Axes] = figure.subplot_mosaic(slots)
    _draw_sublayers(axes["rate"], rows_of(updates, images="all", metric="similarity_change_rate"), kinds)
    axes["rate"].axhline(0.5, color=GREY, linestyle=":", linewidth=1)
    finish_panel(axes["rate"], "Updates towards the class", "share of tokens", ylim=(-0.02, 1.02))
    _draw_sublayers(axes["size"], rows_of(updates, images="all", metric="similarity_increase"), kinds)
    axes["size"].axhline(0, color=GREY, linestyle=":", linewidth=1)
    finish_panel(axes["size"], "Size of the updates", "class logit, output − input", legend=False)
    if not correctness.empty:
        _draw_correctness(axes["correctness"], correctness, kinds)
    for kind in kinds:
        _draw_composition(axes[kind[0]], table, kind)
    axes["legend"].set_axis_off()
    axes["legend"].legend(*axes[kinds[0][0]].get_legend_handles_labels(), loc="lower left", frameon=False,
                          title="… equals the top class of", alignment="left")  # fmt: skip
    owner = "sub-layer's" if reference == "layer_input" else "block's"
    caption = f"Updates are relative to the {owner} input. Bands: bootstrap intervals over images."
    finish_figure(figure, table, title, caption)
    return figure


def head_updates_figure(
    table: pd.DataFrame, metric: str = "similarity_change_rate", reference: str = "block_input", *, title: str = ""
) -> Figure:
    """Draw each head's updates, block by head, for CLS and patches; white means no update.

    Args:
        table: `CategoricalUpdates(heads=True).compute()`.
        metric: `similarity_change_rate` or `similarity_increase`.
        reference: The input that heads' outputs are compared with.
        title: Above the figure: which model and images.

    Raises:
        ValueError: If the table has no heads.
    """
    heads = rows_of(table, metric=metric, reference=reference, images="all", stream="result")
    if heads.empty:
        raise ValueError("the table has no heads: compute it with CategoricalUpdates(heads=True)")
    kinds = [kind for kind in tokens_in(heads, regions=False) if kind[0] in ("cls", "patch")]
    figure = Figure(figsize=(1 + 3.2 * len(kinds), 3.6), layout="constrained")
    grids = [
        rows_of(heads, token_type=kind[0], region=kind[1]).pivot(index="layer", columns="head", values="value")
        for kind in kinds
    ]
    is_rate = metric == "similarity_change_rate"
    spread = 0.5 if is_rate else max(float(grid.abs().to_numpy().max()) for grid in grids)
    # diverging around no effect, and safe for colour-blind readers
    no_effect = 0.5 if is_rate else 0.0
    scale = ScalarMappable(Normalize(no_effect - spread, no_effect + spread), "PuOr_r")
    axes = list(figure.subplots(1, len(kinds), squeeze=False).flat)
    for ax, kind, grid in zip(axes, kinds, grids, strict=True):
        ax.imshow(scale.to_rgba(grid.to_numpy(dtype=float)), aspect="auto", origin="lower")
        ax.set(xlabel="head", ylabel="block", xticks=np.arange(grid.shape[1]), yticks=np.arange(grid.shape[0]))
        ax.set_title(TOKEN_STYLES[kind]["label"], fontsize="medium", loc="left")
    label = "share of tokens moved towards the class" if is_rate else "class logit, output − input"
    figure.colorbar(scale, ax=axes, label=label)
    finish_figure(figure, heads, title, "Means over tokens.")
    return figure


def _draw_sublayers(ax: Axes, rows: pd.DataFrame, kinds: list[tuple[str, str]]) -> None:
    for stream, (name, linestyle) in _SUBLAYERS.items():
        for kind in kinds:
            style = {**TOKEN_STYLES[kind], "linestyle": linestyle, "label": f"{name}, {TOKEN_STYLES[kind]['label']}"}
            draw_curve(ax, rows_of(rows, stream=stream, token_type=kind[0], region=kind[1]), **style)


def _draw_correctness(ax: Axes, rows: pd.DataFrame, kinds: list[tuple[str, str]]) -> None:
    ax.axhline(0, color=GREY, linestyle=":", linewidth=1)
    for stream, (_, linestyle) in _SUBLAYERS.items():
        for kind in kinds:
            curve = rows_of(rows, stream=stream, token_type=kind[0], region=kind[1])
            style: dict[str, Any] = {**TOKEN_STYLES[kind], "linestyle": linestyle}
            draw_curve(ax, curve, significant=True, **style)
    finish_panel(ax, "Size, images classified correctly − wrongly", "logits (filled: p < 0.05)", legend=False)


def _draw_composition(ax: Axes, table: pd.DataFrame, kind: tuple[str, str]) -> None:
    for part, style in _PARTS.items():
        selected = {"metric": f"composition_{part}", "images": "all", "token_type": kind[0], "region": kind[1]}
        draw_curve(ax, rows_of(table, **selected), **style)
    label = TOKEN_STYLES[kind]["label"]
    finish_panel(ax, f"Top class after the block, {label}, …", "percent of tokens", legend=False, ylim=(-2, 102))
