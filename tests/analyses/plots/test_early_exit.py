"""The figure of early exit: a panel per measure, a solid and a dashed line per readout, and what they are held to."""

import pandas as pd

from analyses.plots.early_exit import early_exit_figure


def table(shift: float = 0.0, readouts: tuple[str, ...] = ("class_space", "probe")) -> pd.DataFrame:
    rows = []
    for r, readout in enumerate(readouts):
        for m, measure in enumerate(("margin", "agreement", "fixed")):
            key = {"readout": readout, "measure": measure, "metric": "accuracy", "n_images": 8}
            for depth in (1.0, 2.5, 4.0):
                value = 10 * depth + r + 2 * m + shift
                rows.append({**key, "point": "curve", "depth": depth, "value": value, "low": value, "high": value})
            if measure != "fixed":
                rows.append({**key, "point": "calibrated", "depth": 3.0, "value": 70.0 + m, "low": 0.0, "high": 99.0})
            rows.append({**key, "point": "area", "depth": None, "value": 55.0, "low": 0.0, "high": 99.0})
    return pd.DataFrame(rows)


def test_lines_are_the_rows_of_the_table() -> None:
    figure = early_exit_figure(table(), table(-5.0, ("class_space",)), title="a model")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Exit by margin", "Exit by agreement of blocks"]
    for m, ax in enumerate(figure.axes):
        lines = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
        assert lines["class space"] == [10 + 2 * m, 25 + 2 * m, 40 + 2 * m]
        assert lines["class space, all at one block"] == [14, 29, 44]
        assert lines["linear probes"] == [11 + 2 * m, 26 + 2 * m, 41 + 2 * m]
        assert lines["freshly initialised"] == [5 + 2 * m, 20 + 2 * m, 35 + 2 * m]
        markers = [line for line in ax.lines if line.get_linestyle() == "None"]
        assert [(list(line.get_xdata()), list(line.get_ydata())) for line in markers] == 2 * [([3.0], [70.0 + m])]
        assert ax.get_xlabel() == "mean depth, blocks"
    assert figure.get_suptitle() == "a model"
