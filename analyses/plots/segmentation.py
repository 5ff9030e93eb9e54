"""Patches as a segmentation: accuracy and IoU over the blocks, for each reader of the patches."""

import pandas as pd

from analyses.plots.curves import BLUE, GREY, VERMILION, draw_curve, finish_figure, finish_panel, rows_of
from analyses.plots.figure import Figure

__all__ = ["segmentation_figure"]

_METRICS = {
    "pixel_accuracy": "pixel accuracy",
    "object_iou": "IoU of the object, mean over images",
    "mean_iou": "mean IoU over classes",
}
_READERS = {"class_embeddings": ("class embeddings", VERMILION), "linear_head": ("linear head", BLUE)}


def segmentation_figure(table: pd.DataFrame, null: pd.DataFrame | None = None, *, title: str = "") -> Figure:
    """Draw each metric over the blocks, in percent, with bands of the bootstrap intervals.

    Args:
        table: `Segmentation().compute()`.
        null: The same for the model freshly initialised, as dashed lines.
        title: Above the figure: which model and images.

    >>> rows = [{"layer": 0, "reader": "class_embeddings", "metric": "mean_iou", "value": 3.0, "n_images": 2}]
    >>> len(segmentation_figure(pd.DataFrame(rows)).axes)
    1
    """
    shown = [metric for metric in _METRICS if metric in set(table["metric"])]
    figure = Figure(figsize=(1 + 3.4 * max(1, len(shown)), 3.2), layout="constrained")
    axes = figure.subplots(1, max(1, len(shown)), squeeze=False, sharey=True)[0]
    for place, (ax, metric) in enumerate(zip(axes, shown, strict=False)):
        for reader, (label, colour) in _READERS.items():
            for rows, name, style in ((table, label, "-"), (null, f"{label}, freshly initialised", "--")):
                found = pd.DataFrame() if rows is None else rows_of(rows, metric=metric, reader=reader)
                if len(found):
                    shade = colour if style == "-" else GREY
                    draw_curve(ax, found, color=shade, linestyle=style, label=name)
        finish_panel(ax, _METRICS[metric], "percent" if place == 0 else "", legend=place == 0)
        ax.set_ylim(bottom=0)
    finish_figure(
        figure, table, title, "Bands: bootstrap intervals over images; of the mean IoU, over 64 groups of them."
    )
    return figure
