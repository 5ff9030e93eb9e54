"""Token pruning: accuracy, and the share of kept patches that are on the object, against the patches that are kept."""

import pandas as pd

from analyses.plots.curves import GREY, LINE_STYLES, draw_curve, finish_figure, finish_panel, rows_of
from analyses.plots.figure import Figure

__all__ = ["token_pruning_figure"]

_SCORES = {
    "cls_attention": "attention of CLS",
    "class_space": "class space",
    "importance": "importance",
    "label": "class space, label known",
    "norm": "norm",
}
_METRICS = {"accuracy": "Accuracy", "on_object": "Kept patches on the object"}


def token_pruning_figure(table: pd.DataFrame, null: pd.DataFrame | None = None, *, title: str = "") -> Figure:
    """Draw each score's curve over the number of kept patches; random patches dashed, all of them as a dotted line.

    Args:
        table: `TokenPruning().compute()`.
        null: The same for the model freshly initialised: its accuracy with random patches, dotted in grey.
        title: Above the figure: which model and images.

    >>> rows = [{"score": score, "n_kept": n, "metric": "accuracy", "value": 90.0, "low": 80.0, "high": 95.0,
    ...          "n_images": 4, "block": 2} for score in ("class_space", "random") for n in (4, 8)]
    >>> [len(ax.lines) for ax in token_pruning_figure(pd.DataFrame(rows)).axes]
    [2]
    """
    shown = [metric for metric in _METRICS if metric in set(table["metric"])]
    figure = Figure(figsize=(1 + 4.2 * len(shown), 3.9), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for place, (ax, metric) in enumerate(zip(axes, shown, strict=True)):
        rows = table.assign(layer=table["n_kept"])
        for (score, label), style in zip(_SCORES.items(), LINE_STYLES, strict=False):
            found = rows_of(rows, metric=metric, score=score)
            if len(found):
                draw_curve(ax, found, label=label, **style)
        random = rows_of(rows, metric=metric, score="random")
        if len(random):
            draw_curve(ax, random, label="random", color=GREY, linestyle="--")
        whole = rows_of(rows, metric=metric, score="all")
        if len(whole):
            ax.axhline(float(whole["value"].iloc[0]), color=GREY, linestyle=":", linewidth=1, label="all patches")
        control = None if null is None else rows_of(null.assign(layer=null["n_kept"]), metric=metric, score="random")
        if control is not None and len(control) and metric == "accuracy":
            draw_curve(ax, control, label="random, freshly initialised", color=GREY, linestyle="-.")
        finish_panel(ax, _METRICS[metric], "percent" if place == 0 else "", legend=False)
        ax.set_xlabel("patches kept")
    lines, labels = axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    caption = f"Fewer patches from block {int(table['block'].iloc[0])} on. Bands: bootstrap intervals over images."
    finish_figure(figure, table, title, caption)
    return figure
