"""The figure of token pruning: a panel per metric, a line per score over the patches that are kept."""

import pandas as pd

from analyses.plots.token_pruning import token_pruning_figure


def table(shift: float = 0.0) -> pd.DataFrame:
    rows = [
        {"score": score, "share": n / 12, "n_kept": n, "metric": metric, "value": value, "low": value, "high": value}
        for s, score in enumerate(("class_space", "norm", "random"))
        for n in (9, 3, 6)
        for metric, value in (("accuracy", 10.0 * s + n + shift), ("on_object", 30.0), ("overlap", 50.0))
    ]
    rows.append({"score": "all", "share": 1.0, "n_kept": 12, "metric": "accuracy", "value": 95.0})
    return pd.DataFrame(rows).assign(n_images=4, block=2)


def test_lines_are_the_rows_of_the_table() -> None:
    figure = token_pruning_figure(table(), table(-2.0), title="a model")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Accuracy", "Kept patches on the object"]
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].lines}
    assert lines["class space"] == ([3, 6, 9], [3, 6, 9])
    assert lines["norm"] == ([3, 6, 9], [13, 16, 19])
    assert lines["random"] == ([3, 6, 9], [23, 26, 29])
    assert lines["random, freshly initialised"] == ([3, 6, 9], [21, 24, 27])
    assert lines["all patches"][1] == [95, 95]
    assert [line.get_label() for line in figure.axes[1].lines] == ["class space", "norm", "random"]
    assert figure.axes[0].get_xlabel() == "patches kept"
    assert figure.get_suptitle() == "a model"
