"""A sweep's tidy table as figures: one figure per metric, over the blocks, with one line per kind of token."""

import math
from collections.abc import Hashable

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from analyses.plots.curves import GREY, TOKEN_STYLES
from analyses.plots.figure import Figure

__all__ = ["block_figures"]

_PANELS = ("perturbation", "stream", "reference", "difference")
_MAX_COLUMNS = 4
_MAX_PANELS = 16


def block_figures(table: pd.DataFrame) -> dict[str, Figure]:
    """Draw every metric of a table with `layer` and `value`; no figures for other tables.

    There is one panel per stream, reference, perturbation and difference, one line per kind of token, and a band per
    interval (`low`, `high`). Single heads, and subsets of the images (`images` other than `all`), are left out.

    >>> table = pd.DataFrame({"layer": [0, 1], "token_type": "patch", "metric": "rate", "value": [10.0, 80.0]})
    >>> sorted(block_figures(table))
    ['rate']
    """
    if not {"layer", "value"} <= set(table.columns):
        return {}
    chosen = table.dropna(subset=["layer", "value"])
    if "images" in chosen:
        chosen = chosen.loc[chosen["images"] == "all"]
    if "head" in chosen:
        chosen = chosen.loc[chosen["head"].isna()]
    if "metric" not in chosen:
        chosen = chosen.assign(metric="value")
    return {str(metric): _figure(str(metric), rows) for metric, rows in chosen.groupby("metric", sort=False)}


def _figure(metric: str, rows: pd.DataFrame) -> Figure:
    if "region" in rows:
        # a difference has another scale than its two terms
        rows = rows.assign(difference=rows["region"].where(rows["region"].str.contains("_minus_", na=False), ""))
    by = [column for column in _PANELS if column in rows and len(set(rows[column])) > 1]
    panels = _parts(rows, by)[:_MAX_PANELS]
    n_columns = min(len(panels), _MAX_COLUMNS)
    n_rows = math.ceil(len(panels) / n_columns)
    figure = Figure(figsize=(2.6 + 3.2 * n_columns, 0.6 + 2.5 * n_rows), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).flat)
    lines: dict[str, Artist] = {}
    for ax, (name, panel_rows) in zip(axes, panels, strict=False):
        lines |= _draw_lines(ax, panel_rows)
        ax.set_title(name.replace("_", " "), fontsize="medium", parse_math=False)
    for ax in axes[len(panels) :]:
        ax.remove()
    for text in figure.legend(lines.values(), lines, loc="outside right upper", frameon=False).get_texts():
        text.set_parse_math(False)
    figure.suptitle(metric.replace("_", " ") + (" (after minus before)" if "before" in rows else ""))
    figure.supxlabel("block")
    return figure


def _draw_lines(ax: Axes, rows: pd.DataFrame) -> dict[str, Artist]:
    """The lines, by name."""
    drawn: dict[str, Artist] = {}
    for name, line in _parts(rows, [column for column in ("token_type", "region") if column in rows]):
        token_type, _, region = name.partition(", ")
        other = {"label": name.removesuffix(", all").replace("_", " "), "color": GREY, "marker": "x"}
        style = TOKEN_STYLES.get((token_type, region or "all"), other)
        line = line.sort_values("layer")
        blocks = line["layer"].astype(int)
        (drawn[style["label"]],) = ax.plot(blocks, line["value"], **style, markersize=4, linewidth=1.5)
        if {"low", "high"} <= set(line.columns) and len(line.dropna(subset=["low", "high"])):
            low, high = (line[end].astype(float) for end in ("low", "high"))
            ax.fill_between(blocks, low, high, color=style["color"], alpha=0.2, linewidth=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    return drawn


def _parts(rows: pd.DataFrame, by: list[str]) -> list[tuple[str, pd.DataFrame]]:
    """The rows split by some columns, in their own order; the values of the columns are the name of each part."""
    if not by:
        return [("", rows)]
    groups = rows.groupby(by, sort=False, dropna=False)
    return [(", ".join(map(str, _present(key))), part) for key, part in groups]


def _present(key: Hashable) -> list[Hashable]:
    values = key if isinstance(key, tuple) else (key,)
    return [value for value in values if value != "" and not pd.isna(value)]  # pyright: ignore[reportGeneralTypeIssues]
