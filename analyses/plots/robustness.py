"""Perturbed images: identifiability over the blocks, the drift of heads and MLPs, and how errors are predicted."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.analysis.tables import rows_where
from analyses.plots.curves import GREY, LINE_STYLES, TOKEN_STYLES, draw_curve, finish_figure, finish_panel, rows_of
from analyses.plots.figure import Figure

__all__ = ["failure_figure", "robustness_figure"]

_KINDS = (("cls", "all"), ("register", "all"), ("patch", "all"))
_QUANTITIES = {
    "margin": "margin of the head",
    "agreement": "patches that agree with it",
    "support": "patches with the answer",
}


def robustness_figure(table: pd.DataFrame, null: pd.DataFrame | None = None, *, title: str = "") -> Figure:
    """Draw the table of `Robustness`: a column for each perturbation.

    Above, the change of identifiability over the blocks, with bands of its paired bootstrap intervals; below, where the
    table has attribution, the change of what each head and MLP contributes to the correct class.

    Args:
        table: `Robustness().compute()`.
        null: The same for the model freshly initialised, as dashed lines.
        title: Above the figure: which model and images.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.robustness import Occlusion, Robustness
    >>> from analyses.sweep import sweep
    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), Robustness({"hidden": Occlusion(0.5)})
    >>> len(robustness_figure(sweep(model, EmojiScenes(4, 0), [analysis])["robustness"]).axes)
    3
    """
    names = list(dict.fromkeys(table["perturbation"]))
    drift = rows_where(table, {"metric": "attribution"})
    n_rows = 2 if len(drift) else 1
    figure = Figure(figsize=(0.8 + 2.9 * len(names), 2.9 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, len(names), squeeze=False)
    for column, name in enumerate(names):
        ax = axes[0, column]
        if column:
            ax.sharey(axes[0, 0])
        for kind in _KINDS:
            where = {"perturbation": name, "metric": "identifiability", "token_type": kind[0], "region": kind[1]}
            for rows, style in ((table, {}), (null, {"linestyle": "--", "marker": "", "label": None, "linewidth": 1})):
                found = pd.DataFrame() if rows is None else rows_of(rows, **where)
                if len(found):
                    draw_curve(ax, found, **{**TOKEN_STYLES[kind], **style})
        ax.axhline(0, color=GREY, linestyle=":", linewidth=1)
        accuracy = rows_where(table, {"perturbation": name, "metric": "accuracy"}).iloc[0]
        heading = f"{_in_words(name)}\naccuracy {accuracy['before']:.0f} → {accuracy['after']:.0f} %"
        finish_panel(ax, heading, "" if column else "change of identifiability", legend=not column)
    if len(drift):
        _draw_drift(figure, axes[1], drift, names)
    dashed = "" if null is None else " Dashed: freshly initialised."
    caption = f"Bands: bootstrap intervals of the paired difference over images.{dashed}"
    finish_figure(figure, table, title, caption)
    return figure


def _draw_drift(figure: Figure, axes: np.ndarray, drift: pd.DataFrame, names: list[str]) -> None:
    largest = float(np.abs(drift["value"].to_numpy(dtype=float)).max()) or 1.0
    for column, name in enumerate(names):
        rows = rows_where(drift, {"perturbation": name})
        heads = rows["head"].astype(float).to_numpy()
        n_heads = int(np.nanmax(heads)) + 1
        grid = rows.assign(place=np.where(np.isnan(heads), n_heads, heads)).pivot(
            index="place", columns="layer", values="value"
        )
        ax = axes[column]
        ax.imshow(grid.to_numpy(dtype=float), cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
        ax.axhline(n_heads - 0.5, color="black", linewidth=0.8)
        ax.set(xlabel="block", yticks=[0, n_heads - 1, n_heads], yticklabels=["head 0", f"head {n_heads - 1}", "MLP"])
        if column:
            ax.set_yticklabels([])
    figure.colorbar(axes[0].images[0], ax=list(axes), label="change of attribution\nto the class, logits")


def failure_figure(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the table of `FailurePrediction`: a panel for each condition.

    Conditions without a right or without a wrong answer are left out; a sentence says so if none is left.

    Args:
        table: `FailurePrediction().compute()`.
        title: Above the figure: which model and images.

    >>> rows = [{"condition": "clean", "quantity": "margin", "layer": layer, "auroc": 0.7} for layer in range(2)]
    >>> rows.append({"condition": "clean", "quantity": "confidence", "layer": None, "auroc": 0.8})
    >>> table = pd.DataFrame(rows).assign(low=0.6, high=0.9, n_images=9, n_wrong=3)
    >>> len(failure_figure(table).axes)
    1
    """
    names = list(dict.fromkeys(table[table["auroc"].notna()]["condition"]))
    if not names:
        figure = Figure(figsize=(5, 1.5), layout="constrained")
        figure.text(0.5, 0.6, "Under no condition are there right and wrong answers to tell apart.", ha="center")
        finish_figure(figure, table, title, "")
        return figure
    n_columns = min(4, len(names))
    n_rows = -(-len(names) // n_columns)
    figure = Figure(figsize=(0.8 + 2.9 * n_columns, 0.6 + 2.7 * n_rows), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).flat)
    for place, name in enumerate(names):
        ax, rows = axes[place], rows_where(table, {"condition": name})
        for style, (quantity, label) in zip(LINE_STYLES, _QUANTITIES.items(), strict=False):
            found = rows_of(rows, quantity=quantity)
            draw_curve(ax, found.assign(value=found["auroc"]), **{**style, "label": label})
        _draw_confidence(ax, rows)
        ax.axhline(0.5, color=GREY, linestyle=":", linewidth=1)
        heading = f"{_in_words(name)}\n{rows['n_wrong'].iloc[0]} of {rows['n_images'].iloc[0]} wrong"
        finish_panel(ax, heading, "" if place % n_columns else "AUROC", legend=False)
    for ax in axes[len(names) :]:
        ax.remove()
    lines, labels = axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=4, frameon=False)
    finish_figure(figure, table, title, "Bands: bootstrap intervals over images. Dotted: chance.")
    return figure


def _in_words(name: str) -> str:
    return name.replace("_", " ")


def _draw_confidence(ax: Axes, rows: pd.DataFrame) -> None:
    confidence = rows_where(rows, {"quantity": "confidence"}).iloc[0]
    ax.axhline(float(confidence["auroc"]), color="black", linestyle="--", linewidth=1.2, label="confidence")
    ax.axhspan(float(confidence["low"]), float(confidence["high"]), color="black", alpha=0.08, linewidth=0)
