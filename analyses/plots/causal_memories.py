"""The causal test of memories over blocks as a figure: the effect of ablating or steering them on the prediction."""

from typing import Any

import pandas as pd

from analyses.plots.curves import BLUE, GREY, ORANGE, SKY_BLUE, VERMILION, draw_curve, finish_panel, rows_of
from analyses.plots.figure import Figure

__all__ = ["causal_memories_figure"]

_CHOICES: dict[str, dict[str, Any]] = {
    "aligned": {"color": BLUE, "marker": "s", "label": "most aligned with the class"},
    "contribution": {"color": VERMILION, "marker": "o", "label": "largest contribution to the class"},
    "random": {"color": GREY, "marker": "x", "label": "random, same length as the aligned"},
    "aligned_other": {"color": SKY_BLUE, "marker": "s", "linestyle": "--", "label": "most aligned with another class"},
    "contribution_other": {
        "color": ORANGE, "marker": "o", "linestyle": "--", "label": "largest contribution to another class",
    },
}  # fmt: skip
_METRICS = {"label_logit": "class logit,\nafter − before", "accuracy": "accuracy, points,\nafter − before"}
_NAMES = {"zero": "set to zero", "mean": "set to their mean"}


def causal_memories_figure(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the table of `CausalMemories`: one column per intervention and k, one row each for logit and accuracy.

    Args:
        table: `CausalMemories().compute()`.
        title: Above the figure: which model and images.

    >>> from analyses.memory_pairs import CausalMemories
    >>> from analyses.data import EmojiScenes
    >>> from analyses.sweep import sweep
    >>> from analyses.statistics import Resampling
    >>> analysis = CausalMemories(ks=[5], resampling=Resampling(9))
    >>> tables = sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(4, 0), [analysis])
    >>> len(causal_memories_figure(tables["causal_memories"]).axes)
    2
    """
    rows = rows_of(table, against=None)
    columns = list(dict.fromkeys(zip(table["intervention"], table["k"], strict=True)))
    figure = Figure(figsize=(2.2 + 2.8 * len(columns), 4.9), layout="constrained")
    axes = figure.subplots(len(_METRICS), len(columns), squeeze=False, sharex=True)
    for row, (metric, ylabel) in zip(axes, _METRICS.items(), strict=True):
        for ax, (intervention, k) in zip(row, columns, strict=True):
            ax.axhline(0, color=GREY, linestyle=":", linewidth=1)
            panel_rows = rows_of(rows, metric=metric, intervention=intervention, k=k)
            for choice, style in _CHOICES.items():
                draw_curve(ax, rows_of(panel_rows, memories=choice), **style)
            done = _NAMES.get(intervention, f"times {intervention.removeprefix('x')}")
            heading = f"{k} memor{'y' if k == 1 else 'ies'} {done}" if metric == "label_logit" else ""
            finish_panel(ax, heading, ylabel if ax is row[0] else "", legend=False)
    # as many side by side as fit the width of the figure
    n_columns = min(3, len(columns))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=n_columns, frameon=False)
    if title:
        figure.suptitle(title, fontsize="large", parse_math=False)
    return figure
