"""Faithfulness of circuits against their size: found circuits, what remains without them, and random ones."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analyses.plots.curves import BLUE, GREY, VERMILION, finish_figure
from analyses.plots.figure import Figure

__all__ = ["circuit_faithfulness_figure"]

_STYLES = {
    "faithfulness": ("circuit", VERMILION, "o"),
    "complement": ("all but the circuit", BLUE, "s"),
    "random": ("random circuit", "#888888", "x"),
}


def circuit_faithfulness_figure(table: pd.DataFrame, null: pd.DataFrame | None = None, *, title: str = "") -> Figure:
    """Draw the share of the metric's change that circuits keep, over the share of edges they have.

    Args:
        table: `CircuitFaithfulness().compute()`.
        null: The same for the model freshly initialised, in a second panel.
        title: Above the figure: which model and images.

    >>> rows = [{"curve": "random", "metric": "value", "share": x, "value": x, "n_images": 1} for x in (0.01, 0.1)]
    >>> len(circuit_faithfulness_figure(pd.DataFrame(rows)).axes)
    1
    """
    panels = [("", table)] if null is None else [("trained", table), ("freshly initialised", null)]
    figure = Figure(figsize=(1 + 4.6 * len(panels), 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (name, rows) in zip(axes, panels, strict=True):
        _draw(ax, rows)
        ax.set_title(name, fontsize="medium")
    axes[0].set_ylabel("share of the change kept")
    caption = "Bands: bootstrap intervals over images. CPR: area over the share of edges, from 0 to 1."
    finish_figure(figure, table, title, caption)
    return figure


def _draw(ax: Axes, table: pd.DataFrame) -> None:
    values = table[table["metric"] == "value"]
    for curve, (label, colour, marker) in _STYLES.items():
        rows: Any = values[values["curve"] == curve]
        rows = rows.sort_values("share")
        if not len(rows):
            continue
        area: Any = table[(table["curve"] == curve) & (table["metric"] == "cpr")]["value"]
        label = f"{label}, CPR {float(area.iloc[0]):.2f}" if len(area) else label
        ax.plot(rows["share"], rows["value"], color=colour, marker=marker, markersize=4, linewidth=1.5, label=label)
        if {"low", "high"} <= set(rows.columns):
            low, high = (rows[end].astype(float) for end in ("low", "high"))
            ax.fill_between(rows["share"], low, high, color=colour, alpha=0.2, linewidth=0)
    for level in (0, 1):
        ax.axhline(level, color=GREY, linewidth=0.8, zorder=0)
    ax.set_xscale("log")
    ax.set_xlabel("share of all edges")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
