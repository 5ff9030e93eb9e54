"""The causal test of memories over blocks as a figure: what ablating or steering them does to the prediction."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses.plots.curves import draw_curve, finish_panel, rows_of

__all__ = ["causal_memories_figure"]

_GREY = "#777777"
_CHOICES: dict[str, dict[str, Any]] = {
    "aligned": {"color": "#0072B2", "marker": "s", "label": "most aligned with the class"},
    "contribution": {"color": "#D55E00", "marker": "o", "label": "that wrote the most of the class"},
    "random": {"color": _GREY, "marker": "x", "label": "random, as long as the aligned"},
    "aligned_other": {"color": "#56B4E9", "marker": "s", "linestyle": "--", "label": "aligned with another class"},
    "contribution_other": {
        "color": "#E69F00", "marker": "o", "linestyle": "--", "label": "that wrote the most of another class",
    },
}  # fmt: skip
_METRICS = {"label_logit": "class logit,\nafter − before", "accuracy": "accuracy, points,\nafter − before"}
_NAMES = {"zero": "set to zero", "mean": "set to their mean"}


def causal_memories_figure(table: pd.DataFrame) -> Figure:
    """Draw what `CausalMemories` computed: a column for each intervention and k, a row for the logit and the accuracy.

    Args:
        table: `CausalMemories().compute()`.

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
    for of_row, (place, (metric, ylabel)) in zip(axes, enumerate(_METRICS.items()), strict=True):
        for ax, (intervention, k) in zip(of_row, columns, strict=True):
            ax.axhline(0, color=_GREY, linestyle=":", linewidth=1)
            of_panel = rows_of(rows, metric=metric, intervention=intervention, k=k)
            for choice, style in _CHOICES.items():
                draw_curve(ax, rows_of(of_panel, memories=choice), **style)
            done = _NAMES.get(intervention, f"times {intervention.removeprefix('x')}")
            title = f"{k} memor{'y' if k == 1 else 'ies'} {done}" if place == 0 else ""
            finish_panel(ax, title, ylabel if ax is of_row[0] else "", legend=False)
    # as many beside each other as the figure is wide
    n_columns = min(3, len(columns))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=n_columns, frameon=False)
    return figure
