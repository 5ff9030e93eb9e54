"""The figure of segmentations has a panel per metric and a line per reader, and shows the null control."""

import pandas as pd

from analyses.plots.segmentation import segmentation_figure


def table(shift: float = 0.0) -> pd.DataFrame:
    rows = [
        {"layer": layer, "reader": reader, "metric": metric, "value": 10.0 * layer + shift, "low": 5.0, "high": 30.0}
        for layer in range(3)
        for reader in ("class_embeddings", "linear_head")
        for metric in ("pixel_accuracy", "object_iou", "mean_iou", "mean_iou_on_objects")
    ]
    return pd.DataFrame(rows).assign(n_images=4)


def test_lines_are_the_rows_of_the_table() -> None:
    figure = segmentation_figure(table(), table(-1.0), title="a model")
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "pixel accuracy",
        "IoU of the object, mean over images",
        "mean IoU over classes",
    ]
    for ax in figure.axes:
        assert len(ax.lines) == 4
        assert [list(line.get_ydata()) for line in ax.lines[:2]] == [[0.0, 10.0, 20.0], [-1.0, 9.0, 19.0]]
    assert figure.get_suptitle() == "a model"


def test_one_reader_without_a_control() -> None:
    rows = table()
    figure = segmentation_figure(rows[(rows["reader"] == "class_embeddings") & (rows["metric"] == "mean_iou")])
    assert [len(ax.lines) for ax in figure.axes] == [1]
