"""Figures of a tidy table: one figure per metric, one panel per stream, one line per kind of token."""

import itertools

import pandas as pd
import pytest

from analyses.plots.curves import TOKEN_STYLES
from analyses.plots.tidy import block_figures


def table(**columns: list) -> pd.DataFrame:
    """Three blocks of every combination of the columns' values."""
    names = ["layer", *columns]
    rows = pd.DataFrame(list(itertools.product(range(3), *columns.values())), columns=names)
    return rows.assign(value=rows["layer"] * 0.1, low=rows["layer"] * 0.1 - 0.05, high=rows["layer"] * 0.1 + 0.05)


def test_one_figure_per_metric_one_panel_per_stream_and_one_line_per_token_kind() -> None:
    figures = block_figures(
        table(
            metric=["rate", "change_rate"], stream=["attn_out", "mlp_out"], token_type=["cls", "patch"], region=["all"]
        )
    )
    assert sorted(figures) == ["change_rate", "rate"]
    axes = figures["change_rate"].axes
    assert [ax.get_title() for ax in axes] == ["attn out", "mlp out"]
    for ax in axes:
        assert len(ax.lines) == 2
        assert list(ax.lines[0].get_ydata()) == pytest.approx([0, 0.1, 0.2])
        assert len(ax.collections) == 2
    assert [text.get_text() for text in figures["rate"].legends[0].get_texts()] == ["CLS", "patches"]
    styles = [TOKEN_STYLES[kind, "all"] for kind in ("cls", "patch")]
    assert [line.get_color() for line in axes[0].lines] == [style["color"] for style in styles]
    assert [line.get_marker() for line in axes[0].lines] == [style["marker"] for style in styles]
    assert figures["rate"].get_suptitle() == "rate"


def test_blocks_keep_their_numbers() -> None:
    rows = table(metric=["change_rate"], token_type=["patch"])
    (ax,) = block_figures(rows[rows["layer"] > 0])["change_rate"].axes
    assert list(ax.lines[0].get_xdata()) == [1, 2]


def test_heads_and_subsets_of_images_are_left_out() -> None:
    rows = table(metric=["rate"], images=["all", "correct"], head=[None, 0, 1], token_type=["patch"])
    (ax,) = block_figures(rows)["rate"].axes
    assert len(ax.lines) == 1


def test_rows_without_a_block_are_left_out() -> None:
    rows = pd.concat([table(metric=["rate"]), pd.DataFrame({"layer": [None], "metric": ["accuracy"], "value": [80.0]})])
    assert list(block_figures(rows)) == ["rate"]


def test_many_panels_fill_rows() -> None:
    rows = table(perturbation=list("abcde"), stream=["x"], token_type=["patch"], region=["object_minus_context"])
    figure = block_figures(rows)["value"]
    assert len(figure.axes) == 5
    assert figure.legends[0].get_texts()[0].get_text() == "patch, object minus context"
    figure.canvas.draw()


def test_differences_have_a_separate_panel() -> None:
    regions = ["all", "object", "context", "object_minus_context"]
    figure = block_figures(table(metric=["rate"], token_type=["patch"], region=regions))["rate"]
    assert [ax.get_title() for ax in figure.axes] == ["", "object minus context"]
    assert [len(ax.lines) for ax in figure.axes] == [3, 1]


def test_the_title_says_that_values_are_changes() -> None:
    figure = block_figures(table(perturbation=["no_cls"], token_type=["patch"]).assign(before=0.5, after=0.6))["value"]
    assert figure.get_suptitle() == "value (after minus before)"


def test_a_table_without_blocks_has_no_figure() -> None:
    assert block_figures(pd.DataFrame({"n_images": [3], "top1": [50.0]})) == {}
