"""Explanation methods compared: accuracy while patches are removed, and localisation of the object."""

from typing import Any

import numpy as np
import pandas as pd

from analyses.plots.curves import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILION,
    finish_figure,
    finish_panel,
)
from analyses.plots.explanation_maps import method_name
from analyses.plots.figure import Figure

__all__ = ["faithfulness_figure", "localisation_figure"]

# a colour and a marker each: colour is never the only difference
_STYLES: dict[str, tuple[str, str]] = {
    "importance": (VERMILION, "o"), "relevance": (BLUE, "s"), "gradient_attention": (GREEN, "^"),
    "raw_attention": (PURPLE, "v"), "rollout": (ORANGE, "D"), "grad_cam": (SKY_BLUE, "P"),
    "input_gradients": ("#8C510A", "X"), "integrated_gradients": ("#7B3294", "*"), "probe": ("#000000", "h"),
    "random": ("#888888", ""),
}  # fmt: skip
_DIRECTIONS = {
    "negative": ("least important first", "higher is better"),
    "positive": ("most important first", "lower is better"),
}
_METRICS = {"pointing_game": "pointing game", "mask_iou": "mask IoU", "average_precision": "average precision"}


def faithfulness_figure(table: pd.DataFrame, rule: str = "published", *, title: str = "") -> Figure:
    """Draw accuracy over the share of patches removed, in both orders, one line per method.

    Args:
        table: `Faithfulness().compute()`.
        rule: The rule of the areas in the legends, `published` or `trapezoid`.
        title: Above the figure: which model and images.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.faithfulness import Faithfulness
    >>> from analyses.sweep import sweep
    >>> from hooked_vit import HookedViT
    >>> faithfulness = Faithfulness(["importance", "random"], n_steps=4)
    >>> tables = sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(8, 0), [faithfulness])
    >>> len(faithfulness_figure(tables["faithfulness"]).axes)
    2
    """
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    for ax, (direction, (order, better)) in zip(figure.subplots(1, 2, sharey=True), _DIRECTIONS.items(), strict=True):
        direction_rows: Any = table[table["direction"] == direction]
        areas = direction_rows[direction_rows["metric"] == f"auc_{rule}"].set_index("method")["value"]
        # the best method at the top, as in the panel
        for method in areas.sort_values(ascending=direction == "positive").index:
            colour, marker = _STYLES.get(str(method), ("#444444", "x"))
            rows = direction_rows[(direction_rows["method"] == method) & (direction_rows["metric"] == "accuracy")]
            share, value, low, high = (
                rows[name].to_numpy(dtype=float) for name in ("n_removed", "value", "low", "high")
            )
            share = 100 * share / rows["n_patches"].to_numpy(dtype=float)
            style: dict[str, Any] = {"linestyle": "--"} if method == "random" else {"marker": marker}
            label = f"{method_name(str(method))}  {areas[method]:.3f}"
            ax.plot(share, value, color=colour, linewidth=1.5, markersize=4, markevery=max(1, len(share) // 10),
                    label=label, **style)  # fmt: skip
            ax.fill_between(share, low, high, color=colour, alpha=0.1, linewidth=0)
        finish_panel(ax, f"Removed {order} ({better})", "accuracy", legend=False, ylim=(-0.02, 1.02))
        ax.set_xlabel("patches removed, %")
        ax.set(xlim=(-2, 102), xticks=range(0, 101, 20))
        # outside the panel, which lines fill
        ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), alignment="left",
                  title=f"area ({rule} rule)", title_fontsize="small")  # fmt: skip
    first_row = table.iloc[0]
    caption = f"{first_row['samples']}; {first_row['removal']}. Bands: 95 % bootstrap intervals over images."
    finish_figure(figure, table, title, caption[0].upper() + caption[1:])
    return figure


def localisation_figure(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw how well each method's maps match the object, with intervals over images; the dotted line is chance.

    Args:
        table: `Localisation().compute()`.
        title: Above the figure: which model and images.

    Raises:
        ValueError: If the table is empty, for example because the dataset has no masks.
    """
    if table.empty:
        raise ValueError("the table is empty: the dataset has no masks, or no image with object and context")
    metrics = [metric for metric in _METRICS if metric in set(table["metric"])]
    figure = Figure(figsize=(11, 1.2 + 0.32 * len(set(table["method"]))), layout="constrained")
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    first = pd.DataFrame(table[table["metric"] == metrics[0]]).sort_values(by="value")
    order = first["method"].tolist()
    for ax, metric in zip(axes, metrics, strict=True):
        rows = pd.DataFrame(table[table["metric"] == metric]).set_index("method").loc[order]
        value, low, high = (rows[name].to_numpy(dtype=float) for name in ("value", "low", "high"))
        colours = [_STYLES.get(method, ("#444444", "o"))[0] for method in order]
        positions = np.arange(len(order))
        ax.hlines(positions, low, high, color=colours, linewidth=2)
        ax.scatter(value, positions, c=colours, s=28, zorder=3)
        if metric != "mask_iou":
            ax.axvline(float(rows["chance"].iloc[0]), color=GREY, linestyle=":", linewidth=1)
        ax.set(yticks=positions, yticklabels=[method_name(method) for method in order], xlim=(-0.02, 1.03))
        ax.set_title(_METRICS[metric], fontsize="medium", loc="left")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#EEEEEE")
        ax.set_axisbelow(True)
    finish_figure(figure, table, title, "Lines: 95 % bootstrap intervals over images; dotted: chance.")
    return figure
