"""Key-value memory pairs over blocks as figures: key-value agreement and compositionality."""

from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes

from analyses.plots.curves import BLUE, GREEN, GREY, VERMILION, draw_curve, finish_panel, rows_of
from analyses.plots.figure import Figure

__all__ = ["compositionality_figure", "key_value_agreement_figure"]

_STREAMS = {"attn_out": "attention", "mlp_out": "MLP"}
_TOKENS = {"all": "all tokens", "cls": "CLS", "patch": "patches"}
_COEFFICIENTS: dict[str, dict[str, Any]] = {
    "pre": {"color": BLUE, "marker": "s", "label": "before the activation"},
    "post": {"color": VERMILION, "marker": "o", "linestyle": "--", "label": "after the activation"},
    "z": {"color": GREEN, "marker": "^", "label": "head output"},
}


def key_value_agreement_figure(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the table of `KeyValueAgreement` (the paper's section 5.2), by sub-layer and kind of token.

    Dotted: a class drawn at random. The last column compares correctly and wrongly classified images over all tokens;
    markers are hollow where the difference is not significant. Bands are intervals.

    Args:
        table: `KeyValueAgreement().compute()`.
        title: Above the figure: which model and images.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.memory_pairs import KeyValueAgreement
    >>> from analyses.sweep import sweep
    >>> from analyses.statistics import Resampling
    >>> analysis = KeyValueAgreement(resampling=Resampling(9))
    >>> tables = sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(4, 0), [analysis])
    >>> len(key_value_agreement_figure(tables["key_value_agreement"]).axes)
    8
    """
    streams = [stream for stream in _STREAMS if stream in set(table["stream"])]
    tokens = [kind for kind in _TOKENS if kind in set(table["token_type"])]
    figure = Figure(figsize=(2.9 * (len(tokens) + 1), 2.7 * len(streams)), layout="constrained")
    axes = figure.subplots(len(streams), len(tokens) + 1, squeeze=False, sharex=True)
    for row, stream in zip(axes, streams, strict=True):
        stream_rows = rows_of(table, stream=stream, region="all")
        for ax in row[1 : len(tokens)]:
            ax.sharey(row[0])
        for ax, token in zip(row, tokens, strict=False):
            _draw_agreement(ax, rows_of(stream_rows, token_type=token, images="all"))
            finish_panel(ax, f"{_STREAMS[stream]}, {_TOKENS[token]}", "% of tokens agree", legend=ax is row[0])
        row[0].set_ylim(bottom=0)
        _draw_difference(row[-1], rows_of(stream_rows, token_type="all", images="correct_minus_wrong"))
        finish_panel(row[-1], f"{_STREAMS[stream]}, correct − wrong", "percentage points", legend=False)
    if title:
        figure.suptitle(title, fontsize="large", parse_math=False)
    return figure


def _draw_agreement(ax: Axes, rows: pd.DataFrame) -> None:
    for kind in [kind for kind in _COEFFICIENTS if kind in set(rows["coefficients"])]:
        style = _COEFFICIENTS[kind]
        draw_curve(ax, rows_of(rows, coefficients=kind, metric="agreement_rate"), **style)
        random = {**style, "marker": "", "linestyle": ":", "linewidth": 1.2, "label": "random class"}
        draw_curve(ax, rows_of(rows, coefficients=kind, metric="agreement_rate_random"), **random)


def _draw_difference(ax: Axes, rows: pd.DataFrame) -> None:
    ax.axhline(0, color=GREY, linestyle=":", linewidth=1)
    rates = rows_of(rows, metric="agreement_rate")
    for kind in [kind for kind in _COEFFICIENTS if kind in set(rates["coefficients"])]:
        draw_curve(ax, rows_of(rates, coefficients=kind), significant=True, **_COEFFICIENTS[kind])
    if rates.empty:
        ax.text(
            0.5,
            0.5,
            "all images are classified\ncorrectly, or all wrongly",
            ha="center",
            va="center",
            transform=ax.transAxes,
        )


def compositionality_figure(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the table of `Compositionality`: how often no single memory predicts the output's class, by k.

    One panel per sub-layer and kind of coefficient, one curve per number of memories, over all tokens; bands are
    intervals.

    Args:
        table: `Compositionality().compute()`.
        title: Above the figure: which model and images.

    >>> from analyses.memory_pairs import Compositionality
    >>> from analyses.data import EmojiScenes
    >>> from analyses.sweep import sweep
    >>> from analyses.statistics import Resampling
    >>> analysis = Compositionality(resampling=Resampling(9))
    >>> tables = sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(4, 0), [analysis])
    >>> len(compositionality_figure(tables["compositionality"]).axes)
    3
    """
    rows = rows_of(table, metric="compositionality", images="all", token_type="all")
    present = set(zip(rows["stream"], rows["coefficients"], strict=True))
    panels = [(stream, kind) for stream in _STREAMS for kind in _COEFFICIENTS if (stream, kind) in present]
    ks = sorted(rows["k"].unique())
    colours = colormaps["viridis_r"].resampled(len(ks) + 1)
    figure = Figure(figsize=(3.3 * len(panels), 2.9), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (stream, kind) in zip(axes, panels, strict=True):
        panel_rows = rows_of(rows, stream=stream, coefficients=kind)
        for rank, k in enumerate(ks, start=1):
            name = f"{k} memor{'y' if k == 1 else 'ies'}"
            draw_curve(ax, rows_of(panel_rows, k=k), color=colours(rank), marker="o", label=name)
        heading = "attention" if kind == "z" else f"MLP, coefficients {_COEFFICIENTS[kind]['label']}"
        finish_panel(ax, heading, "% of tokens that no\nsingle memory predicts", legend=ax is axes[0], ylim=(0, 100))
    if title:
        figure.suptitle(title, fontsize="large", parse_math=False)
    return figure
