"""Figures of sparse dictionaries: fidelity, factors that have a latent, and dose-response curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.dictionaries.reading.steering import DoseResponse
from analyses.plots.curves import BLUE, GREY, LINE_STYLES, VERMILION, finish_figure
from analyses.plots.figure import Figure

__all__ = ["dictionary_fidelity_figure", "dose_response_figure", "factor_figure"]

_SHARES = {
    "explained_variance": "explained variance",
    "loss_recovered": "loss recovered",
    "accuracy_recovered": "accuracy recovered",
}
_STYLES = {"given": ("dictionary", VERMILION, "o"), "random": ("random dictionary", "#888888", "x")}
_RUNS = {"plain": "plain model", "given": "dictionary", "random": "random dictionary", "ablated": "ablated"}


def dictionary_fidelity_figure(table: pd.DataFrame, null: pd.DataFrame | None = None, *, title: str = "") -> Figure:
    """Draw what a dictionary keeps beside a random one, and the accuracy of the model with each.

    Shares below -0.5 are drawn at the edge, with their value.

    Args:
        table: `DictionaryFidelity().compute()`.
        null: Ignored: the control is the random dictionary, which is in the table.
        title: Above the figure: which model and images.

    >>> rows = [{"dictionary": "given", "metric": metric, "value": 0.9, "n_images": 2} for metric in _SHARES]
    >>> len(dictionary_fidelity_figure(pd.DataFrame(rows)).axes)
    2
    """
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    for d, (name, (label, colour, marker)) in enumerate(_STYLES.items()):
        for place, metric in enumerate(_SHARES):
            rows = _rows(table, dictionary=name, metric=metric)
            if not len(rows) or not np.isfinite(rows["value"].iloc[0]):
                continue
            value = float(rows["value"].iloc[0])
            at, shown = place + (d - 0.5) * 0.25, max(value, -0.5)
            if {"low", "high"} <= set(rows.columns):
                ends = np.clip(rows[["low", "high"]].to_numpy(dtype=float)[0], -0.5, None)
                left.plot(ends, [at, at], color=colour, linewidth=1.5)
            left.plot(shown, at, marker, color=colour, label=label if place == 0 else None)
            text = f"{value:.2f}" if abs(value) < 100 else f"{value:.0e}"
            left.annotate(text, (shown, at), textcoords="offset points", xytext=(6, 5), fontsize="small", color=colour)
    left.set_yticks(range(len(_SHARES)), list(_SHARES.values()))
    left.set_ylim(len(_SHARES) - 0.5, -0.5)
    left.set_xlim(-0.55, 1.2)
    for level in (0, 1):
        left.axvline(level, color=GREY, linewidth=0.8, zorder=0)
    left.set_xlabel("share: 1 is the plain model")
    left.legend(frameon=False, fontsize="small", loc="lower left")
    accuracies = [(label, _rows(table, dictionary=name, metric="accuracy")) for name, label in _RUNS.items()]
    accuracies = [(label, float(rows["value"].iloc[0])) for label, rows in accuracies if len(rows)]
    right.barh([label for label, _ in accuracies], [value for _, value in accuracies], color=BLUE, height=0.6)
    right.invert_yaxis()
    right.set_xlim(0, 100)
    right.set_xlabel("accuracy, percent")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    sizes = [(metric, _rows(table, dictionary="given", metric=metric)) for metric in ("l0", "dead_percent")]
    values = {metric: float(rows["value"].iloc[0]) for metric, rows in sizes if len(rows)}
    caption = "Lines: bootstrap intervals over images."
    if "l0" in values:
        caption += f" {values['l0']:.1f} active latents per token, {values.get('dead_percent', np.nan):.0f} % dead."
    finish_figure(figure, table, title, caption)
    return figure


def factor_figure(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw, for each factor, the mean AUROC of its values' best features: one marker for each kind of features.

    Args:
        table: `compare_features(…)`, up to six kinds.
        title: Above the figure: which model and images.

    Raises:
        ValueError: If there are more than six kinds of features.

    >>> row = {"features": "latents", "factor": "class", "auroc": 0.9, "low": 0.8, "high": 1.0, "percent_found": 50}
    >>> len(factor_figure(pd.DataFrame([row])).axes)
    2
    """
    kinds, factors = list(dict.fromkeys(table["features"])), list(dict.fromkeys(table["factor"]))
    if len(kinds) > len(LINE_STYLES):
        raise ValueError(f"expected at most {len(LINE_STYLES)} kinds of features, got {len(kinds)}")
    figure = Figure(figsize=(10.4, 1.6 + 0.5 * len(factors)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for kind, style in zip(kinds, LINE_STYLES, strict=False):
        rows = _rows(table, features=kind).set_index("factor").reindex(factors)
        at = np.arange(len(factors)) + (kinds.index(kind) - (len(kinds) - 1) / 2) * 0.12
        ends: Any = rows[["low", "high"]].to_numpy(dtype=float).T
        axes[0].hlines(at, ends[0], ends[1], color=style["color"], linewidth=1.5)
        axes[0].plot(rows["auroc"], at, style["marker"], color=style["color"], markersize=5, label=kind)
        axes[1].plot(rows["percent_found"], at, style["marker"], color=style["color"], markersize=5)
    axes[0].set_yticks(range(len(factors)), factors)
    axes[0].set_ylim(len(factors) - 0.5, -0.5)
    axes[0].axvline(0.5, color=GREY, linewidth=0.8, zorder=0)
    axes[0].set_xlabel("AUROC of the best feature, mean over values")
    axes[1].set_xlabel("values that have their feature, percent")
    axes[1].set_xlim(-3, 103)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", color="#e0e0e0", linewidth=0.6)
        ax.set_axisbelow(True)
    figure.legend(frameon=False, fontsize="small", loc="outside lower center", ncols=len(kinds))
    if title:
        figure.suptitle(title, fontsize="large", parse_math=False)
    return figure


def dose_response_figure(responses: Sequence[DoseResponse], labels: Sequence[str], *, title: str = "") -> Figure:
    """Draw the change of the target's logit and the side effects on other classes over the dose.

    Args:
        responses: Up to six, `dose_response(…)`, all of one mode.
        labels: The name of each curve.
        title: Above the figure: which model, images and target.

    Raises:
        ValueError: If there are none, more than six, as many labels are missing, or modes differ.
    """
    if not 0 < len(responses) <= len(LINE_STYLES) or len(labels) != len(responses):
        raise ValueError(
            f"expected 1 to {len(LINE_STYLES)} responses and a label for each, got {len(responses)} and {len(labels)}"
        )
    if len({response.mode for response in responses}) > 1:
        raise ValueError("expected responses of one mode, scale or add, got both: draw two figures")
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = {
        "target_change": "change of the target's logit",
        "others_spread": "mean absolute change of other logits",
        "kept_top": "top class kept, percent of images",
    }
    for response, label, style in zip(responses, labels, LINE_STYLES, strict=False):
        table = response.table()
        for ax, column in zip(axes, panels, strict=True):
            ax.plot(table["dose"], table[column], markersize=4, linewidth=1.5, label=label, **style)
    neutral = 1 if responses[0].mode == "scale" else 0
    for ax, name in zip(axes, panels.values(), strict=True):
        _finish(ax, name, neutral, responses[0].mode)
    axes[2].set_ylim(-3, 103)
    axes[0].legend(frameon=False, fontsize="small")
    finish_figure(figure, pd.DataFrame({"n_images": [len(responses[0].plain)]}), title, "Dotted: no change.")
    return figure


def _finish(ax: Axes, name: str, neutral: int, mode: str) -> None:
    ax.axvline(neutral, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    ax.set_ylabel(name)
    ax.set_xlabel("activation multiplied by" if mode == "scale" else "added to the activation")
    ax.spines[["top", "right"]].set_visible(False)


def _rows(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    chosen = np.ones(len(table), dtype=bool)
    for name, value in columns.items():
        chosen &= table[name].eq(value).to_numpy(dtype=bool)
    return pd.DataFrame(table[chosen])
