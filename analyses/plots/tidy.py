"""A sweep's tidy table as figures: one a metric, over the blocks, a line for each kind of token."""

import math
from collections.abc import Hashable

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["block_figures"]

# Okabe and Ito's colours, and a marker each, so that no line is told by its colour alone
_STYLES = {
    "cls": ("#D55E00", "o"), "patch": ("#0072B2", "s"), "patch, object": ("#009E73", "^"),
    "patch, context": ("#CC79A7", "v"), "register": ("#E69F00", "D"), "dist": ("#56B4E9", "P"),
    "patch, object_minus_context": ("#555555", "x"),
}  # fmt: skip
_OTHER_STYLE = ("#555555", "")
_PANELS = ("perturbation", "stream", "reference", "difference")
_N_COLUMNS = 4
_N_PANELS = 16


def block_figures(table: pd.DataFrame) -> dict[str, Figure]:
    """Draw every metric of a table that has `layer` and `value`; nothing, if it has none.

    Streams, references, perturbations and differences have a panel each, kinds of token a line each, intervals
    (`low`, `high`) a band. Single heads, and subsets of the images (`images` other than `all`), are left out.

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
        # on another scale than what it is the difference of
        rows = rows.assign(difference=rows["region"].where(rows["region"].str.contains("_minus_", na=False), ""))
    by = [column for column in _PANELS if column in rows and len(set(rows[column])) > 1]
    panels = _parts(rows, by)[:_N_PANELS]
    n_columns = min(len(panels), _N_COLUMNS)
    n_rows = math.ceil(len(panels) / n_columns)
    figure = Figure(figsize=(2.6 + 3.2 * n_columns, 0.6 + 2.5 * n_rows), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).flat)
    named: dict[str, Artist] = {}
    for ax, (name, of_panel) in zip(axes, panels, strict=False):
        named |= _draw_lines(ax, of_panel)
        ax.set_title(name.replace("_", " "), fontsize="medium", parse_math=False)
    for ax in axes[len(panels) :]:
        ax.remove()
    for text in figure.legend(named.values(), named, loc="outside right upper", frameon=False).get_texts():
        text.set_parse_math(False)
    figure.suptitle(metric.replace("_", " ") + (" (after minus before)" if "before" in rows else ""))
    figure.supxlabel("block")
    return figure


def _draw_lines(ax: Axes, rows: pd.DataFrame) -> dict[str, Artist]:
    """The lines, by name."""
    drawn: dict[str, Artist] = {}
    for name, line in _parts(rows, [column for column in ("token_type", "region") if column in rows]):
        name = name.removesuffix(", all")
        colour, marker = _STYLES.get(name, _OTHER_STYLE)
        line = line.sort_values("layer")
        blocks, name = line["layer"].astype(int), name.replace("_", " ")
        (drawn[name],) = ax.plot(blocks, line["value"], color=colour, marker=marker, markersize=4, linewidth=1.5)
        if {"low", "high"} <= set(line.columns) and len(line.dropna(subset=["low", "high"])):
            ax.fill_between(blocks, line["low"].astype(float), line["high"].astype(float), color=colour, alpha=0.2,
                            linewidth=0)  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    return drawn


def _parts(rows: pd.DataFrame, by: list[str]) -> list[tuple[str, pd.DataFrame]]:
    """The rows apart by some columns, in their own order, each with its values as a name."""
    if not by:
        return [("", rows)]
    groups = rows.groupby(by, sort=False, dropna=False)
    return [(", ".join(map(str, _present(key))), part) for key, part in groups]


def _present(key: Hashable) -> list[Hashable]:
    values = key if isinstance(key, tuple) else (key,)
    return [value for value in values if value != "" and not pd.isna(value)]  # pyright: ignore[reportGeneralTypeIssues]
