"""Lines over blocks show the given values."""

import pytest
from matplotlib.figure import Figure

from analyses.plots.curves import TOKEN_STYLES, draw_block_lines


def test_a_line_for_each_name() -> None:
    ax = Figure().subplots()
    draw_block_lines(ax, {"CLS": [0.5, 0.9, 1.0], "$x$": [0.5, 0.6, 0.7]}, "identifiability", chance=0.505)
    assert [line.get_ydata()[-1] for line in ax.lines] == [1.0, 0.7, 0.505]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["CLS", "$x$", "chance"]
    assert ax.get_ylabel() == "identifiability"


def test_names_of_token_kinds_have_the_style_of_that_kind() -> None:
    ax = Figure().subplots()
    draw_block_lines(ax, {"other": [0.1], "patches": [0.5], "CLS": [0.9]}, "rate", legend=False)
    other, patches, cls = ax.lines
    assert patches.get_color() == TOKEN_STYLES["patch", "all"]["color"]
    assert cls.get_marker() == TOKEN_STYLES["cls", "all"]["marker"]
    assert other.get_color() not in (patches.get_color(), cls.get_color())


def test_the_legend_can_be_left_out() -> None:
    ax = Figure().subplots()
    draw_block_lines(ax, {"CLS": [0.5]}, "rate", legend=False)
    assert ax.get_legend() is None


def test_too_many_lines_are_an_error() -> None:
    with pytest.raises(ValueError, match="at most 6 lines"):
        draw_block_lines(Figure().subplots(), {f"{n}": [0.0] for n in range(7)}, "rate")
