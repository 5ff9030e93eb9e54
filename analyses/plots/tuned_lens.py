"""Direct projection and a tuned lens side by side, over the blocks."""

import pandas as pd

from analyses.plots.curves import GREY, TOKEN_STYLES, draw_curve, finish_figure, finish_panel, rows_of, tokens_in
from analyses.plots.figure import Figure

__all__ = ["lens_comparison_figure"]

_METRICS = {
    "identifiability": ("Class identifiability", "mean over tokens"),
    "identifiability_rate": ("Tokens with the class on top", "percent"),
}


def lens_comparison_figure(table: pd.DataFrame, *, n_classes: int | None = None, title: str = "") -> Figure:
    """Draw the table of `compare_lenses`: what each block shows directly (dashed) and through the lens.

    All patches are drawn as one; the table also has those on the object and of context.

    Args:
        table: `compare_lenses(...)`.
        n_classes: The model's number of classes: chance is drawn at `(C + 1) / 2C`; by default at one half.
        title: Above the figure: which model and images.

    >>> rows = [{"layer": 0, "token_type": "cls", "region": "all", "metric": "identifiability", "lens": lens,
    ...          "value": 0.5, "low": 0.4, "high": 0.6, "n_images": 3} for lens in ("direct", "tuned")]
    >>> len(lens_comparison_figure(pd.DataFrame(rows)).axes[0].lines)
    3
    """
    shown = [metric for metric in _METRICS if metric in set(table["metric"])]
    figure = Figure(figsize=(1 + 4.2 * len(shown), 3.9), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for ax, metric in zip(axes, shown, strict=True):
        for token_type, region in tokens_in(table, regions=False):
            style = TOKEN_STYLES[token_type, region]
            for lens, line in (("tuned", "-"), ("direct", "--")):
                rows = rows_of(table, metric=metric, lens=lens, token_type=token_type, region=region)
                label = f"{style['label']}, {'tuned lens' if lens == 'tuned' else 'direct'}"
                draw_curve(ax, rows, **{**style, "label": label, "linestyle": line})
        if metric == "identifiability":
            chance = 0.5 if n_classes is None else (n_classes + 1) / (2 * n_classes)
            ax.axhline(chance, color=GREY, linestyle=":", linewidth=1, label="chance")
        finish_panel(ax, *_METRICS[metric], legend=False)
    lines, labels = axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    finish_figure(figure, table, title, "Bands: bootstrap intervals over images.")
    return figure
