"""One curve over blocks from rows of a tidy table: its values, its interval, and where it is significant."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["TOKEN_STYLES", "draw_block_lines", "draw_curve", "finish_figure", "finish_panel", "rows_of", "tokens_in"]

# Okabe and Ito's colours, and a marker each, so that no curve is told by its colour alone
TOKEN_STYLES: dict[tuple[str, str], dict[str, Any]] = {
    ("cls", "all"): {"label": "CLS", "color": "#D55E00", "marker": "o"},
    ("dist", "all"): {"label": "distillation", "color": "#56B4E9", "marker": "P"},
    ("register", "all"): {"label": "registers", "color": "#E69F00", "marker": "D"},
    ("patch", "all"): {"label": "patches", "color": "#0072B2", "marker": "s"},
    ("patch", "object"): {"label": "patches on the object", "color": "#009E73", "marker": "^"},
    ("patch", "context"): {"label": "patches of context", "color": "#CC79A7", "marker": "v"},
}
"""How each kind of token looks in every figure, by `token_type` and `region`."""


def rows_of(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows that have these values, in the order of the blocks; `None` stands for a missing value.

    >>> rows_of(pd.DataFrame({"layer": [1, 0, 0], "metric": ["a", "a", "b"]}), metric="a")["layer"].tolist()
    [0, 1]
    """
    chosen = np.ones(len(table), dtype=bool)
    for name, value in columns.items():
        chosen &= (table[name].isna() if value is None else table[name].eq(value)).to_numpy(dtype=bool)
    return pd.DataFrame(table[chosen]).sort_values(by="layer")


def tokens_in(table: pd.DataFrame, *, regions: bool = True) -> list[tuple[str, str]]:
    """The kinds of token that a table has rows of, in the order of `TOKEN_STYLES`."""
    there = set(zip(table["token_type"], table["region"], strict=True))
    return [kind for kind in TOKEN_STYLES if kind in there and (regions or kind[1] == "all")]


def draw_curve(ax: Axes, rows: pd.DataFrame, column: str = "value", *, significant: bool = False, **style: Any) -> None:
    """Draw rows of one curve; its interval, where it has one, as a band.

    Args:
        ax: Where.
        rows: A row a block, with `layer` and `column`, and `low` and `high` for a band around `value`.
        column: What to draw.
        significant: Hollow markers where `p_adjusted` is 0.05 or more, or missing.
        style: As for matplotlib's `plot`.
    """
    blocks, values = (rows[name].to_numpy(dtype=float) for name in ("layer", column))
    style = {"linewidth": 1.5, "markersize": 4.5, **style}
    (line,) = ax.plot(blocks, values, **style)
    if column == "value" and {"low", "high"} <= set(rows.columns):
        low, high = (rows[name].to_numpy(dtype=float) for name in ("low", "high"))
        ax.fill_between(blocks, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
    if significant:
        hollow = ~(rows["p_adjusted"].to_numpy(dtype=float) < 0.05)
        ax.plot(blocks[hollow], values[hollow], linestyle="", marker=line.get_marker(), color=line.get_color(),
                markersize=style["markersize"], markerfacecolor="white")  # fmt: skip


def finish_panel(ax: Axes, title: str, ylabel: str, *, legend: bool = True, **limits: Any) -> None:
    """Name a panel and its axes; blocks are counted from 0, as in every table."""
    ax.set_title(title, fontsize="medium", loc="left")
    ax.set_xlabel("block")
    ax.set_ylabel(ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(**limits)
    if legend:
        ax.legend(frameon=False, fontsize="small")


def finish_figure(figure: Figure, table: pd.DataFrame, title: str, caption: str) -> None:
    """Put a title above the figure, and below it the caption, which begins with the number of images."""
    if title:
        figure.suptitle(title, fontsize="large", parse_math=False)
    caption = f"{table['n_images'].max():.0f} images. {caption}"
    if figure.legends:
        # the layout keeps a legend and a label below the panels apart from these, but not from each other
        figure.legends[0].set_title(caption)
        figure.legends[0].get_title().set_fontsize("small")
    else:
        figure.supxlabel(caption, fontsize="small")


# Okabe and Ito's colours, and a marker each, so that no line is told by its colour alone
_STYLES = (("#D55E00", "o"), ("#0072B2", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "D"), ("#56B4E9", "P"))


def draw_block_lines(
    ax: Axes, lines: Mapping[str, Sequence[float]], ylabel: str, *, chance: float | None = None, legend: bool = True
) -> None:
    """Draw a line for each name, over the blocks from 0 on.

    Args:
        ax: Where.
        lines: A value a block, up to six lines.
        ylabel: What the values are, with their unit.
        chance: What guessing would give, drawn as a dotted line.
        legend: Whether to tell the lines' names; once is enough for neighbours with the same lines.

    Raises:
        ValueError: If there are more than six lines.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> draw_block_lines(ax, {"CLS": [0.5, 0.9], "patches": [0.5, 0.7]}, "identifiability", chance=0.5)
    >>> [line.get_label() for line in ax.lines]
    ['CLS', 'patches', 'chance']
    """
    if len(lines) > len(_STYLES):
        raise ValueError(f"at most {len(_STYLES)} lines can be told apart, got {len(lines)}")
    for (name, values), (colour, marker) in zip(lines.items(), _STYLES, strict=False):
        ax.plot(range(len(values)), values, color=colour, marker=marker, markersize=4, linewidth=1.5, label=name)
    if chance is not None:
        ax.axhline(chance, color="#777777", linestyle=":", linewidth=1, label="chance")
    ax.set_xlabel("block")
    ax.set_ylabel(ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        for text in ax.legend(frameon=False, fontsize="small").get_texts():
            text.set_parse_math(False)
