"""Identifiability and accuracy before and after perturbations as one figure."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.plots.curves import TOKEN_STYLES, draw_curve, finish_figure, finish_panel, rows_of, tokens_in
from analyses.plots.figure import Figure

__all__ = ["PERTURBATION_NAMES", "perturbation_figure"]

PERTURBATION_NAMES = {
    "self_only": "attention to self only",
    "no_cls": "no attention to CLS",
    "no_context": "no context patches",
    "no_object": "no object patches",
    "no_touched": "no object pixel",
}
"""The perturbations of `Perturbation` in words."""


def perturbation_figure(table: pd.DataFrame, metric: str = "identifiability_rate", *, title: str = "") -> Figure:
    """Draw the table of `Perturbation`: one panel per perturbation; solid after it, dashed before, on the same tokens.

    The last panel shows the model's accuracy, with the bootstrap interval of its change.

    Args:
        table: `Perturbation().compute()`.
        metric: `identifiability`, `identifiability_rate` or `identifiability_rate_of_images`.
        title: Above the figure: which model and images.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.perturbation import Perturbation
    >>> from analyses.sweep import sweep
    >>> from hooked_vit import HookedViT
    >>> tables = sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(8, 0), [Perturbation()])
    >>> len(perturbation_figure(tables["perturbation"]).axes)
    5
    """
    names = list(dict.fromkeys(table["perturbation"]))
    n_columns = min(3, len(names) + 1)
    n_rows = -(-(len(names) + 1) // n_columns)
    figure = Figure(figsize=(3.7 * n_columns, 3 * n_rows), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    labels = {"identifiability": ("mean over tokens", (None, 1.02))}
    ylabel, ylim = labels.get(metric, ("percent with the class on top", (-2, 102)))
    for ax, name in zip(axes, names, strict=False):
        if ax is not axes[0]:
            ax.sharey(axes[0])
        rows = rows_of(table, perturbation=name, metric=metric)
        kinds = tokens_in(rows)
        if len({region for _, region in kinds if region != "all"}) == 1:
            # the perturbation leaves one region only, which is then all patches
            kinds.remove(("patch", "all"))
        for kind in kinds:
            curve = rows_of(rows, token_type=kind[0], region=kind[1])
            style = TOKEN_STYLES[kind]
            draw_curve(ax, curve, "after", **style)
            draw_curve(ax, curve, "before", **{**style, "label": None, "marker": "", "linestyle": "--", "linewidth": 1})
        finish_panel(ax, _in_words(name), ylabel, legend=False, ylim=ylim)
    _draw_accuracy(axes[len(names)], table, names)
    for ax in axes[len(names) + 1 :]:
        ax.remove()
    handles = {}
    for ax in axes[: len(names)]:
        lines, names_of_lines = ax.get_legend_handles_labels()
        handles |= dict(zip(names_of_lines, lines, strict=True))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=6, frameon=False)
    finish_figure(figure, table, title, "Solid: after the perturbation; dashed: before, on the same tokens. "
                  "Whiskers: bootstrap interval of the change.")  # fmt: skip
    return figure


def _draw_accuracy(ax: Axes, table: pd.DataFrame, names: list[str]) -> None:
    rows = table[table["metric"] == "accuracy"].set_index("perturbation").loc[names]
    positions, after = np.arange(len(names)), rows["after"].to_numpy(dtype=float)
    ends = np.abs(rows[["low", "high"]].sub(rows["value"], axis=0).to_numpy(dtype=float).T)
    ax.barh(positions, after, color="#BBBBBB", xerr=np.nan_to_num(ends), error_kw={"elinewidth": 1, "capsize": 2})
    ax.plot(rows["before"], positions, linestyle="", marker="|", markersize=14, color="black")
    ax.set(yticks=positions, yticklabels=[_in_words(name) for name in names], xlim=(0, 102), xlabel="percent")
    ax.invert_yaxis()
    ax.set_title("accuracy (black line: before)", fontsize="medium", loc="left")
    ax.spines[["top", "right"]].set_visible(False)


def _in_words(name: str) -> str:
    return PERTURBATION_NAMES.get(name, name.replace("_", " "))
