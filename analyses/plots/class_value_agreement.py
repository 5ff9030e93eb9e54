"""Value vectors of each block and the classes as a figure: class-value agreement and semantic coherence."""

import pandas as pd

from analyses.plots.curves import SUBLAYER_STYLES, draw_curve, finish_panel, rows_of
from analyses.plots.figure import Figure

__all__ = ["value_vector_statistics_figure"]

_TITLES = {
    "class_value_agreement": ("Class-value agreement", "largest cosine, mean over classes", "freshly initialised"),
    "semantic_coherence": ("Semantic coherence", "similarity of top classes", "permuted labels"),
}


def value_vector_statistics_figure(*tables: pd.DataFrame, title: str = "") -> Figure:
    """Draw tables of `compare_class_value_agreement` and `SemanticCoherence.table`, one panel per metric.

    Dotted: the model freshly initialised, or class labels permuted (the band holds 95 % of permutations). Markers are
    hollow where a block is not significantly above that.

    Args:
        tables: Any number of tables; those of one metric share a panel.
        title: Above the figure: which model.

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
        heading, ylabel, null = _TITLES[metric]
        for stream, style in SUBLAYER_STYLES.items():
            curve = rows_of(rows, metric=metric, stream=stream)
            if curve.empty:
                continue
            draw_curve(ax, curve, significant=True, **style)
            dotted = {"color": style["color"], "linestyle": ":", "label": f"{style['label']}, {null}"}
            draw_curve(ax, curve, "null", **dotted)
            if "null_low" in curve and not curve["null_low"].hasnans:
                low, high = (curve[end].astype(float) for end in ("null_low", "null_high"))
                ax.fill_between(curve["layer"].astype(int), low, high, color=style["color"], alpha=0.15, linewidth=0)
        finish_panel(ax, heading, ylabel, legend=False)
        ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    if title:
        figure.suptitle(title, fontsize="large", parse_math=False)
    return figure
