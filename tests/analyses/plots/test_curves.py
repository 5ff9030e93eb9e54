"""Curves show their rows, bands and significant blocks; every figure has the same styles for tokens."""

import pandas as pd
from matplotlib.figure import Figure

from analyses.plots.curves import TOKEN_STYLES, draw_curve, rows_of, tokens_in

ROWS = pd.DataFrame(
    {"layer": [0, 1, 2], "value": [0.1, 0.5, 0.9], "low": [0.0, 0.4, 0.8], "high": [0.2, 0.6, 1.0],
     "p_adjusted": [0.2, None, 0.01]}
)  # fmt: skip


def test_a_curve_and_its_band():
    ax = Figure().subplots()
    draw_curve(ax, ROWS, label="patches", marker="s", color="black")
    (line,) = ax.lines
    assert line.get_xydata().tolist() == [[0, 0.1], [1, 0.5], [2, 0.9]]
    (band,) = ax.collections
    assert {(0.0, 0.0), (2.0, 1.0), (1.0, 0.4)} <= {tuple(point) for point in band.get_paths()[0].vertices.tolist()}


def test_hollow_markers_are_not_significant():
    ax = Figure().subplots()
    draw_curve(ax, ROWS, significant=True, marker="o")
    assert ax.lines[1].get_xdata().tolist() == [0, 1]
    assert ax.lines[1].get_markerfacecolor() == "white"


def test_another_column_has_no_band():
    ax = Figure().subplots()
    draw_curve(ax, ROWS.assign(before=[1, 2, 3]), "before")
    assert ax.lines[0].get_ydata().tolist() == [1, 2, 3]
    assert not ax.collections


def test_rows_and_token_kinds_are_found():
    table = pd.DataFrame({"layer": [1, 0, 0], "head": [None, 2, None], "token_type": ["patch", "cls", "patch"],
                          "region": ["context", "all", "all"]})  # fmt: skip
    assert rows_of(table, head=None)["layer"].tolist() == [0, 1]
    assert rows_of(table, head=2)["token_type"].tolist() == ["cls"]
    assert tokens_in(table) == [("cls", "all"), ("patch", "all"), ("patch", "context")]
    assert tokens_in(table, regions=False) == [("cls", "all"), ("patch", "all")]


def test_token_kinds_differ_in_colour_marker_and_label():
    for key in ("color", "marker", "label"):
        assert len({style[key] for style in TOKEN_STYLES.values()}) == len(TOKEN_STYLES)
