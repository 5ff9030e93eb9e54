"""Linear probes and the class-space projection over blocks as one figure."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps

from analyses.plots.curves import GREY, VERMILION, draw_curve, finish_figure, finish_panel, rows_of
from analyses.plots.figure import Figure

__all__ = ["probe_figure"]

_TITLES = {"cls": "CLS", "patch": "patches, mean over positions", "pooled": "mean of the patches"}
_METRICS = {"accuracy": "class on top, %", "identifiability": "identifiability"}


def probe_figure(table: pd.DataFrame, metric: str = "accuracy", *, title: str = "") -> Figure:
    """Draw the table of `compare_with_projection`: one panel per kind of position, one line per method.

    Args:
        table: `compare_with_projection(...)`.
        metric: `accuracy` or `identifiability`.
        title: Above the figure: which model and images.

    >>> rows = [{"method": "projection", "shots": 0, "layer": layer, "token_type": "cls", "metric": "accuracy",
    ...          "value": 50.0, "low": 40.0, "high": 60.0, "n_images": 9} for layer in (0, 1)]
    >>> len(probe_figure(pd.DataFrame(rows)).axes)
    1
    """
    kinds = [kind for kind in _TITLES if kind in set(table["token_type"])]
    shots = sorted(int(k) for k in set(table["shots"]) if k > 0)
    # from light to dark with the number of shots
    shades = colormaps["cividis_r"](np.linspace(0.15, 0.95, len(shots)))
    figure = Figure(figsize=(3.7 * len(kinds) + 0.4, 3.9), layout="constrained")
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for position, (ax, kind) in enumerate(zip(axes, kinds, strict=True)):
        rows = rows_of(table, token_type=kind, metric=metric)
        style: dict[str, Any] = {"color": VERMILION, "marker": "o", "label": "projection, no fitting"}
        draw_curve(ax, rows_of(rows, method="projection"), **style)
        for k, shade in zip(shots, shades, strict=True):
            label = f"probe, {k} {'image' if k == 1 else 'images'} per class"
            draw_curve(ax, rows_of(rows, method="probe", shots=k), color=shade, marker="s", label=label)
        if shots:
            null = rows_of(rows, method="probe_null", shots=shots[-1])
            draw_curve(ax, null, color=GREY, linestyle=":", label=f"probe, {shots[-1]} per class, labels shuffled")
        # the second panel, of patches, has room for the legend
        legend = position == min(1, len(kinds) - 1)
        finish_panel(ax, _TITLES[kind], _METRICS[metric] if position == 0 else "", legend=legend)
    finish_figure(figure, table, title, "Bands: 95 % bootstrap intervals over images.")
    return figure
