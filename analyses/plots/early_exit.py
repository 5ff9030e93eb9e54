"""Early exit: accuracy against mean depth, for each readout, beside exits at one fixed block."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analyses.plots.curves import BLUE, GREEN, GREY, VERMILION, draw_curve, finish_figure, finish_panel
from analyses.plots.figure import Figure

__all__ = ["early_exit_figure"]

_MEASURES = {"margin": "Exit by margin", "agreement": "Exit by agreement of blocks"}
_READOUTS = {
    "class_space": ("class space", VERMILION, "o"),
    "tuned_lens": ("tuned lens", BLUE, "s"),
    "probe": ("linear probes", GREEN, "^"),
}


def early_exit_figure(table: pd.DataFrame, null: pd.DataFrame | None = None, *, title: str = "") -> Figure:
    """Draw accuracy against mean depth: solid with early exit, dashed where all images leave after the same block.

    Large markers are the thresholds that were chosen on the calibration images.

    Args:
        table: `EarlyExit().compute()`.
        null: The same for the model freshly initialised, dotted in grey.
        title: Above the figure: which model and images.

    >>> rows = [{"readout": "class_space", "measure": measure, "point": "curve", "threshold": 0.5, "depth": depth,
    ...          "metric": "accuracy", "value": 50.0, "low": 40.0, "high": 60.0, "n_images": 9}
    ...         for measure in ("margin", "fixed") for depth in (1.0, 2.0)]
    >>> [len(ax.lines) for ax in early_exit_figure(pd.DataFrame(rows)).axes]
    [2]
    """
    shown = [measure for measure in _MEASURES if measure in set(table["measure"])]
    figure = Figure(figsize=(1 + 4.2 * len(shown), 3.9), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for place, (ax, measure) in enumerate(zip(axes, shown, strict=True)):
        for readout, (label, colour, marker) in _READOUTS.items():
            of_readout = pd.DataFrame(table[table["readout"] == readout])
            if len(of_readout):
                _curve(ax, of_readout, measure, label=label, color=colour)
                _curve(ax, of_readout, "fixed", label=f"{label}, all at one block", color=colour, linestyle="--")
                rows = of_readout[of_readout["point"].eq("calibrated") & of_readout["measure"].eq(measure)]
                chosen = rows[rows["metric"] == "accuracy"]
                if len(chosen):
                    ax.plot(chosen["depth"], chosen["value"], linestyle="", marker=marker, markersize=9, color=colour)
        if null is not None:
            _curve(ax, null, measure, label="freshly initialised", color=GREY, linestyle=":")
        finish_panel(ax, _MEASURES[measure], "accuracy, percent" if place == 0 else "", legend=False)
        ax.set_xlabel("mean depth, blocks")
    lines, labels = axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    finish_figure(figure, table, title, "Bands: bootstrap intervals over images. Large markers: calibrated thresholds.")
    return figure


def _curve(ax: Axes, table: pd.DataFrame, measure: str, **style: Any) -> None:
    rows = pd.DataFrame(table[table["measure"].eq(measure) & table["point"].eq("curve")])
    rows = rows[rows["readout"] == rows["readout"].iloc[0]] if len(rows) else rows
    draw_curve(ax, rows.assign(layer=rows["depth"]).sort_values("depth"), **style)
