"""What the value vectors of each block have to do with the classes: agreement with them, coherence of them."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses.plots.curves import draw_curve, finish_panel, rows_of

__all__ = ["value_vector_statistics_figure"]

_STREAMS: dict[str, dict[str, Any]] = {
    "attn_out": {"color": "#D55E00", "marker": "o", "label": "attention"},
    "mlp_out": {"color": "#0072B2", "marker": "s", "label": "MLP"},
}
_TITLES = {
    "class_value_agreement": ("Class-value agreement", "largest cosine, mean over classes", "freshly initialised"),
    "semantic_coherence": ("Semantic coherence", "similarity of top classes", "permuted labels"),
}


def value_vector_statistics_figure(*tables: pd.DataFrame) -> Figure:
    """Draw tables of `compare_class_value_agreement` and `SemanticCoherence.table`, a panel a metric.

    Dotted: the model freshly initialised, or class labels permuted (its band is where 95 % of permutations lie).
    Markers are hollow where a block is not significantly above that.

    Args:
        tables: Any number of them; those of one metric share a panel.

    >>> from analyses.value_vectors import compare_class_value_agreement
    >>> from analyses.statistics import Resampling
    >>> table = compare_class_value_agreement(HookedViT.from_pretrained("emoji-vit"), resampling=Resampling(9))
    >>> len(value_vector_statistics_figure(table).axes)
    1
    """
    rows = pd.concat(tables, ignore_index=True)
    metrics = [metric for metric in _TITLES if metric in set(rows["metric"])]
    figure = Figure(figsize=(4.1 * len(metrics), 3.5), layout="constrained")
    for ax, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        title, ylabel, null = _TITLES[metric]
        for stream, style in _STREAMS.items():
            of = rows_of(rows, metric=metric, stream=stream)
            if of.empty:
                continue
            draw_curve(ax, of, significant=True, **style)
            dotted = {"color": style["color"], "linestyle": ":", "label": f"{style['label']}, {null}"}
            draw_curve(ax, of, "null", **dotted)
            if "null_low" in of and not of["null_low"].hasnans:
                ax.fill_between(of["layer"].astype(int), of["null_low"].astype(float), of["null_high"].astype(float),
                                color=style["color"], alpha=0.15, linewidth=0)  # fmt: skip
        finish_panel(ax, title, ylabel, legend=False)
        ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure
