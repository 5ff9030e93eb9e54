"""Identifiability over blocks as one figure: evolution and null control, rate, regions, change rate."""

import pandas as pd
from matplotlib.axes import Axes

from analyses.plots.curves import (
    GREY,
    ORANGE,
    TOKEN_STYLES,
    draw_curve,
    finish_figure,
    finish_panel,
    rows_of,
    tokens_in,
)
from analyses.plots.figure import Figure

__all__ = ["identifiability_figure"]


def identifiability_figure(
    table: pd.DataFrame,
    null: pd.DataFrame | None = None,
    comparison: pd.DataFrame | None = None,
    *,
    n_classes: int | None = None,
    title: str = "",
) -> Figure:
    """Draw the table of `Identifiability` (the paper's section 4).

    Args:
        table: `Identifiability().compute()`.
        null: The same table for the model freshly initialised, drawn dashed.
        comparison: `compare_with_null(...)`: a star where a kind of token is above the null control, p < 0.05 after
            correction.
        n_classes: The model's number of classes: chance is drawn at `(C + 1) / 2C`; by default at one half.
        title: Above the figure: which model and images.

    >>> from analyses.identifiability import Identifiability
    >>> from analyses.sweep import sweep
    >>> from analyses.data import EmojiScenes
    >>> from hooked_vit import HookedViT
    >>> table = sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(8, 0), [Identifiability()])["identifiability"]
    >>> [ax.get_title(loc="left") for ax in identifiability_figure(table).axes][:2]
    ['Class identifiability', 'Tokens with the class on top']
    """
    has_regions = "object_minus_context" in set(table["region"])
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    axes = figure.subplots(2, 2)
    _draw_evolution(
        axes[0, 0], table, null, comparison, 0.5 if n_classes is None else (n_classes + 1) / (2 * n_classes)
    )
    _draw_rates(axes[0, 1], table)
    if has_regions:
        _draw_regions(axes[1, 0], table)
    else:
        axes[1, 0].set_axis_off()
    _draw_change_rate(axes[1, 1], table)
    lines, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=4 if len(lines) > 6 else 6, frameon=False)
    finish_figure(figure, table, title, "Bands: bootstrap intervals over images.")
    return figure


def _draw_evolution(
    ax: Axes, table: pd.DataFrame, null: pd.DataFrame | None, comparison: pd.DataFrame | None, chance: float
) -> None:
    kinds = tokens_in(table)
    for position, (token_type, region) in enumerate(kinds):
        style = TOKEN_STYLES[token_type, region]
        selected = {"token_type": token_type, "region": region}
        draw_curve(ax, rows_of(table, metric="identifiability", **selected), **style)
        if null is not None and region == "all":
            untrained = {**style, "label": f"{style['label']}, untrained", "marker": "", "linestyle": "--"}
            draw_curve(ax, rows_of(null, metric="identifiability", **selected), **untrained)
        above = (
            [] if comparison is None else rows_of(comparison, **selected).query("p_adjusted < 0.05")["layer"].tolist()
        )
        if above:
            # one row of stars per kind, between the panel and its title
            height = [1.02 + 0.04 * position] * len(above)
            ax.plot(above, height, linestyle="", marker="*", markersize=5, color=style["color"], clip_on=False,
                    transform=ax.get_xaxis_transform())  # fmt: skip
    ax.axhline(chance, color=GREY, linestyle=":", linewidth=1, label="chance")
    title = "Class identifiability" + ("" if comparison is None else " (star: above untrained, p < 0.05)")
    finish_panel(ax, title, "mean over tokens", legend=False, ylim=(None, 1.02))
    ax.set_title(title, fontsize="medium", loc="left", pad=6 if comparison is None else 8 + 5 * len(kinds))


def _draw_rates(ax: Axes, table: pd.DataFrame) -> None:
    for kind in tokens_in(table):
        selected = {"token_type": kind[0], "region": kind[1]}
        draw_curve(ax, rows_of(table, metric="identifiability_rate", **selected), **TOKEN_STYLES[kind])
    with_one = rows_of(table, metric="images_with_identifiable", token_type="patch", region="all")
    style = {
        **TOKEN_STYLES["patch", "all"],
        "linestyle": "-.",
        "marker": "",
        "label": "images with at least one such patch",
    }
    draw_curve(ax, with_one, **style)
    finish_panel(ax, "Tokens with the class on top", "percent", legend=False, ylim=(-2, 102))
    ax.legend(handles=[ax.lines[-1]], frameon=False, fontsize="small")


def _draw_regions(ax: Axes, table: pd.DataFrame) -> None:
    selected = {"token_type": "patch", "region": "object_minus_context"}
    ax.axhline(0, color=GREY, linestyle=":", linewidth=1)
    draw_curve(ax, rows_of(table, metric="identifiability", **selected), significant=True, color="black", marker="o",
               label="within images, mean over images")  # fmt: skip
    draw_curve(ax, rows_of(table, metric="identifiability_pooled", **selected), color=ORANGE, marker="", linestyle="--",
               label="all tokens pooled")  # fmt: skip
    finish_panel(ax, "Object minus context (filled: p < 0.05 over images)", "difference of identifiability")


def _draw_change_rate(ax: Axes, table: pd.DataFrame) -> None:
    ax.axhline(0.5, color=GREY, linestyle=":", linewidth=1)
    for kind in tokens_in(table):
        selected = {"token_type": kind[0], "region": kind[1]}
        draw_curve(ax, rows_of(table, metric="change_rate", **selected), **TOKEN_STYLES[kind])
    finish_panel(ax, "Tokens whose class logit rises in the block", "share", legend=False, ylim=(-0.02, 1.02))
