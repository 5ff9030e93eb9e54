"""Lines over blocks hold the values they are given."""

import pytest
from matplotlib.figure import Figure

from analyses.plots.curves import draw_block_lines


def test_a_line_for_each_name() -> None:
    ax = Figure().subplots()
    draw_block_lines(ax, {"CLS": [0.5, 0.9, 1.0], "$x$": [0.5, 0.6, 0.7]}, "identifiability", chance=0.505)
    assert [line.get_ydata()[-1] for line in ax.lines] == [1.0, 0.7, 0.505]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["CLS", "$x$", "chance"]
    assert ax.get_ylabel() == "identifiability"


def test_one_legend_is_enough() -> None:
    ax = Figure().subplots()
    draw_block_lines(ax, {"CLS": [0.5]}, "rate", legend=False)
    assert ax.get_legend() is None


def test_no_more_lines_than_can_be_told_apart() -> None:
    with pytest.raises(ValueError, match="at most 6 lines"):
        draw_block_lines(Figure().subplots(), {f"{n}": [0.0] for n in range(7)}, "rate")
