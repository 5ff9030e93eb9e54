"""Curves over blocks, and the one palette of all figures: colours, and the styles of tokens and sub-layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import figure as figures
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "LINE_STYLES",
    "ORANGE",
    "PURPLE",
    "SKY_BLUE",
    "SUBLAYER_STYLES",
    "TOKEN_STYLES",
    "VERMILION",
    "draw_block_lines",
    "draw_curve",
    "finish_figure",
    "finish_panel",
    "rows_of",
    "tokens_in",
]

# Okabe and Ito's colours, which colour-blind readers can tell apart
VERMILION = "#D55E00"
BLUE = "#0072B2"
GREEN = "#009E73"
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
SKY_BLUE = "#56B4E9"
GREY = "#555555"
"""The colour of chance, of zero and of controls."""

LINE_STYLES: tuple[dict[str, Any], ...] = tuple(
    {"color": colour, "marker": marker}
    for colour, marker in zip((VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY_BLUE), "os^vDP", strict=True)
)
"""A colour and a marker for each of six curves: colour is never the only difference."""

TOKEN_STYLES: dict[tuple[str, str], dict[str, Any]] = {
    ("cls", "all"): {"label": "CLS", **LINE_STYLES[0]},
    ("dist", "all"): {"label": "distillation", **LINE_STYLES[5]},
    ("register", "all"): {"label": "registers", **LINE_STYLES[4]},
    ("patch", "all"): {"label": "patches", **LINE_STYLES[1]},
    ("patch", "object"): {"label": "patches on the object", **LINE_STYLES[2]},
    ("patch", "context"): {"label": "patches of context", **LINE_STYLES[3]},
}
"""The style of each kind of token in every figure, by `token_type` and `region`."""

SUBLAYER_STYLES: dict[str, dict[str, Any]] = {
    "attn_out": {"label": "attention", **LINE_STYLES[0]},
    "mlp_out": {"label": "MLP", **LINE_STYLES[2]},
}
"""The style of each sub-layer in figures where colours are not token kinds, by `stream`."""


def rows_of(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows with these values, in the order of the blocks; `None` means a missing value.

    >>> rows_of(pd.DataFrame({"layer": [1, 0, 0], "metric": ["a", "a", "b"]}), metric="a")["layer"].tolist()
    [0, 1]
    """
    chosen = np.ones(len(table), dtype=bool)
    for name, value in columns.items():
        chosen &= (table[name].isna() if value is None else table[name].eq(value)).to_numpy(dtype=bool)
    return pd.DataFrame(table[chosen]).sort_values(by="layer")


def tokens_in(table: pd.DataFrame, *, regions: bool = True) -> list[tuple[str, str]]:
    """The kinds of token that a table has rows for, in the order of `TOKEN_STYLES`."""
    present = set(zip(table["token_type"], table["region"], strict=True))
    return [kind for kind in TOKEN_STYLES if kind in present and (regions or kind[1] == "all")]


def draw_curve(ax: Axes, rows: pd.DataFrame, column: str = "value", *, significant: bool = False, **style: Any) -> None:
    """Draw one curve, with its interval, if it has one, as a band.

    Args:
        ax: The panel.
        rows: One row per block, with `layer` and `column`, and `low` and `high` for a band around `value`.
        column: The column with the values.
        significant: Whether to draw hollow markers where `p_adjusted` is 0.05 or more, or missing.
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


def finish_figure(figure: figures.Figure, table: pd.DataFrame, title: str, caption: str) -> None:
    """Put a title above the figure and a caption, which begins with the number of images, below it."""
    if title:
        figure.suptitle(title, fontsize="large", parse_math=False)
    caption = f"{table['n_images'].max():.0f} images. {caption}"
    if figure.legends:
        # the layout separates a legend and a label from the panels above them, but not from each other
        figure.legends[0].set_title(caption)
        figure.legends[0].get_title().set_fontsize("small")
    else:
        figure.supxlabel(caption, fontsize="small")


def draw_block_lines(
    ax: Axes, lines: Mapping[str, Sequence[float]], ylabel: str, *, chance: float | None = None, legend: bool = True
) -> None:
    """Draw one line per name over the blocks; names of token kinds, such as "CLS", have that kind's style.

    Args:
        ax: The panel.
        lines: One value per block, for up to six lines.
        ylabel: The quantity, with its unit.
        chance: The value for guessing, drawn as a dotted line.
        legend: Whether to draw a legend; neighbours with the same lines need only one.

    Raises:
        ValueError: If there are more than six lines.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> draw_block_lines(ax, {"CLS": [0.5, 0.9], "patches": [0.5, 0.7]}, "identifiability", chance=0.5)
    >>> [line.get_label() for line in ax.lines]
    ['CLS', 'patches', 'chance']
    """
    if len(lines) > len(LINE_STYLES):
        raise ValueError(f"at most {len(LINE_STYLES)} lines can be told apart, got {len(lines)}")
    of_tokens = {style["label"]: style for style in TOKEN_STYLES.values() if style["label"] in lines}
    taken = {style["color"] for style in of_tokens.values()}
    free = iter(style for style in LINE_STYLES if style["color"] not in taken)
    for name, values in lines.items():
        style = of_tokens[name] if name in of_tokens else next(free)
        ax.plot(range(len(values)), values, **{**style, "label": name}, markersize=4, linewidth=1.5)
    if chance is not None:
        ax.axhline(chance, color=GREY, linestyle=":", linewidth=1, label="chance")
    ax.set_xlabel("block")
    ax.set_ylabel(ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        for text in ax.legend(frameon=False, fontsize="small").get_texts():
            text.set_parse_math(False)
