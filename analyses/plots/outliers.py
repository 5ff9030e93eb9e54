"""Outlier tokens over the blocks: norms, images that have any, and the attention that each kind of token draws."""

import pandas as pd
from matplotlib.axes import Axes

from analyses.plots.curves import GREY, TOKEN_STYLES, draw_curve, finish_figure, finish_panel, rows_of, tokens_in
from analyses.plots.figure import Figure

__all__ = ["outliers_figure"]


def outliers_figure(table: pd.DataFrame, null: pd.DataFrame | None = None, *, title: str = "") -> Figure:
    """Draw the table of `Outliers`, with bands of the bootstrap intervals.

    Args:
        table: `Outliers().compute()`.
        null: The same for the model freshly initialised, as dashed lines.
        title: Above the figure: which model and images.

    >>> row = {"layer": 0, "token_type": "patch", "region": "all", "value": 2.0, "n_images": 2, "threshold": 3.0}
    >>> len(outliers_figure(pd.DataFrame([row | {"metric": "largest_norm_ratio"}])).axes)
    3
    """
    figure = Figure(figsize=(11.4, 3.4), layout="constrained")
    norms, images, attention = figure.subplots(1, 3)
    for metric, ax in (("largest_norm_ratio", norms), ("images_with_outlier", images)):
        for kind in tokens_in(table, regions=False):
            if kind[0] == "patch" or metric == "largest_norm_ratio":
                _draw(ax, table, null, metric, kind)
    norms.axhline(float(table["threshold"].iloc[0]), color=GREY, linestyle=":", linewidth=1, label="threshold")
    finish_panel(norms, "largest norm in an image", "in medians of its patches")
    norms.set_ylim(bottom=0)
    finish_panel(images, "images with an outlier patch", "percent", legend=False, ylim=(-2, 102))
    for kind in tokens_in(table, regions=False):
        _draw(attention, table, None, "attention", kind)
    style = {**TOKEN_STYLES["patch", "all"], "label": "outlier patches", "linestyle": "--", "markerfacecolor": "white"}
    draw_curve(attention, rows_of(table, metric="attention_to_outliers", token_type="patch", region="all"), **style)
    finish_panel(attention, "attention drawn", "percent of all attention", ylim=(-2, 102))
    dashed = "" if null is None else " Dashed, left and middle: freshly initialised."
    finish_figure(figure, table, title, f"Bands: bootstrap intervals over images.{dashed}")
    return figure


def _draw(ax: Axes, table: pd.DataFrame, null: pd.DataFrame | None, metric: str, kind: tuple[str, str]) -> None:
    for rows, style in ((table, {}), (null, {"linestyle": "--", "marker": "", "label": None, "linewidth": 1})):
        if rows is not None:
            found = rows_of(rows, metric=metric, token_type=kind[0], region=kind[1])
            if len(found):
                draw_curve(ax, found, **{**TOKEN_STYLES[kind], **style})
