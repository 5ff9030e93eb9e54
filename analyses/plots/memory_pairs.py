"""Key-value memory pairs over blocks as figures: agreement, and how many memories a prediction is made of."""

from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.plots.curves import draw_curve, finish_panel, rows_of

__all__ = ["compositionality_figure", "key_value_agreement_figure"]

_GREY = "#777777"
_STREAMS = {"attn_out": "attention", "mlp_out": "MLP"}
_TOKENS = {"all": "all tokens", "cls": "CLS", "patch": "patches"}
_COEFFICIENTS: dict[str, dict[str, Any]] = {
    "pre": {"color": "#0072B2", "marker": "s", "label": "before f"},
    "post": {"color": "#D55E00", "marker": "o", "linestyle": "--", "label": "after f"},
    "z": {"color": "#009E73", "marker": "^", "label": "z"},
}


def key_value_agreement_figure(table: pd.DataFrame) -> Figure:
    """Draw what `KeyValueAgreement` computed (the paper's section 5.2): a row a sub-layer, a column a kind of token.

    Dotted: a class drawn at random. The last column holds images that the model classifies correctly against the
    others, over all tokens; markers are hollow where the difference is not significant. Bands are intervals.

    Args:
        table: `KeyValueAgreement().compute()`.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.memory_pairs import KeyValueAgreement
    >>> from analyses.sweep import sweep
    >>> from analyses.statistics import Resampling
    >>> analysis = KeyValueAgreement(resampling=Resampling(9))
    >>> tables = sweep(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(4, 0), [analysis])
    >>> len(key_value_agreement_figure(tables["key_value_agreement"]).axes)
    8
    """
    streams = [one for one in _STREAMS if one in set(table["stream"])]
    tokens = [one for one in _TOKENS if one in set(table["token_type"])]
    figure = Figure(figsize=(2.9 * (len(tokens) + 1), 2.7 * len(streams)), layout="constrained")
    axes = figure.subplots(len(streams), len(tokens) + 1, squeeze=False, sharex=True)
    for row, stream in zip(axes, streams, strict=True):
        of_stream = rows_of(table, stream=stream, region="all")
        for ax in row[1 : len(tokens)]:
            ax.sharey(row[0])
        for ax, token in zip(row, tokens, strict=False):
            _draw_agreement(ax, rows_of(of_stream, token_type=token, images="all"))
            title = f"{_STREAMS[stream]}, {_TOKENS[token]}"
            finish_panel(ax, title, "% of tokens agree", legend=ax is row[0])
        row[0].set_ylim(bottom=0)
        _draw_difference(row[-1], rows_of(of_stream, token_type="all", images="correct_minus_wrong"))
        finish_panel(row[-1], f"{_STREAMS[stream]}, correct − wrong", "percentage points", legend=False)
    return figure


def _draw_agreement(ax: Axes, rows: pd.DataFrame) -> None:
    for kind in [one for one in _COEFFICIENTS if one in set(rows["coefficients"])]:
        style = _COEFFICIENTS[kind]
        draw_curve(ax, rows_of(rows, coefficients=kind, metric="agreement_rate"), **style)
        random = {**style, "marker": "", "linestyle": ":", "linewidth": 1.2, "label": "random class"}
        draw_curve(ax, rows_of(rows, coefficients=kind, metric="agreement_rate_random"), **random)


def _draw_difference(ax: Axes, rows: pd.DataFrame) -> None:
    ax.axhline(0, color=_GREY, linestyle=":", linewidth=1)
    of_rate = rows_of(rows, metric="agreement_rate")
    for kind in [one for one in _COEFFICIENTS if one in set(of_rate["coefficients"])]:
        draw_curve(ax, rows_of(of_rate, coefficients=kind), significant=True, **_COEFFICIENTS[kind])
    if of_rate.empty:
        ax.text(0.5, 0.5, "all images are one\nor the other", ha="center", va="center", transform=ax.transAxes)


def compositionality_figure(table: pd.DataFrame) -> Figure:
    """Draw what `Compositionality` computed: how often no single memory predicts the output's class, by k.

    A panel for each sub-layer and kind of coefficient, a curve for each number of memories considered, over all
    tokens; bands are intervals.

    Args:
        table: `Compositionality().compute()`.

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
    there = set(zip(rows["stream"], rows["coefficients"], strict=True))
    panels = [(stream, kind) for stream in _STREAMS for kind in _COEFFICIENTS if (stream, kind) in there]
    ks = sorted(rows["k"].unique())
    colours = colormaps["viridis_r"].resampled(len(ks) + 1)
    figure = Figure(figsize=(3.3 * len(panels), 2.9), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (stream, kind) in zip(axes, panels, strict=True):
        of_panel = rows_of(rows, stream=stream, coefficients=kind)
        for place, k in enumerate(ks):
            name = f"{k} memor{'y' if k == 1 else 'ies'}"
            draw_curve(ax, rows_of(of_panel, k=k), color=colours(place + 1), marker="o", label=name)
        title = "attention" if kind == "z" else f"MLP, coefficients {_COEFFICIENTS[kind]['label']}"
        finish_panel(ax, title, "% of tokens that no\nsingle memory predicts", legend=ax is axes[0], ylim=(0, 100))
    return figure
