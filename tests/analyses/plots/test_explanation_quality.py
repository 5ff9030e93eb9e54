"""Figures of explanation methods and probes show the numbers of their tables."""

import pandas as pd
import pytest

from analyses.plots.explanation_quality import faithfulness_figure, localisation_figure
from analyses.plots.linear_probe import probe_figure


def faithfulness() -> pd.DataFrame:
    rows = []
    for method, level in (("importance", 0.9), ("random", 0.5)):
        for direction in ("negative", "positive"):
            given = {"method": method, "direction": direction, "n_images": 9, "n_patches": 4,
                  "samples": "all images", "removal": "tokens dropped"}  # fmt: skip
            rows.append(
                {**given, "metric": "auc_published", "n_removed": None, "value": level, "low": 0.1, "high": 1.0}
            )
            for n in range(5):
                rows.append(
                    {**given, "metric": "accuracy", "n_removed": n, "value": level - n / 10, "low": 0, "high": 1}
                )
    return pd.DataFrame(rows).astype({"n_removed": "Int64"})


def test_curves_of_both_orders() -> None:
    figure = faithfulness_figure(faithfulness(), title="$model")
    for ax, order in zip(figure.axes, (["importance  0.900", "random  0.500"], ["random  0.500", "importance  0.900"]),
                         strict=True):  # fmt: skip
        assert [line.get_label() for line in ax.lines] == order
        importance = next(line for line in ax.lines if line.get_label().startswith("importance"))
        assert importance.get_xdata().tolist() == [0, 25, 50, 75, 100]
        assert importance.get_ydata().tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    assert "9 images. All images; tokens dropped." in figure.get_supxlabel()


def test_localisation_has_one_row_per_method() -> None:
    given = {"low": 0.1, "high": 0.9, "chance": 0.2, "n_images": 9}
    rows = [
        {"method": method, "metric": metric, "value": value, **given}
        for method, value in (("rollout", 0.7), ("random", 0.3))
        for metric in ("pointing_game", "mask_iou")
    ]
    figure = localisation_figure(pd.DataFrame(rows))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["random", "rollout"]
    assert figure.axes[0].collections[1].get_offsets()[:, 0].tolist() == pytest.approx([0.3, 0.7])
    with pytest.raises(ValueError, match="the dataset has no masks"):
        localisation_figure(pd.DataFrame(rows).iloc[:0])


def test_probes() -> None:
    keys = [(method, shots, kind, layer) for method, shots in (("projection", 0), ("probe", 1), ("probe", 5),
          ("probe_null", 1), ("probe_null", 5)) for kind in ("cls", "patch") for layer in (0, 1)]  # fmt: skip
    rows = [
        {"method": method, "shots": shots, "token_type": kind, "layer": layer, "metric": "accuracy", "n_images": 9,
         "value": 10.0 * shots + layer, "low": 0.0, "high": 90.0}
        for method, shots, kind, layer in keys
    ]  # fmt: skip
    figure = probe_figure(pd.DataFrame(rows))
    names = ["projection, no fitting", "probe, 1 image per class", "probe, 5 images per class",
             "probe, 5 per class, labels shuffled"]  # fmt: skip
    for ax in figure.axes:
        assert [line.get_label() for line in ax.lines] == names
        assert ax.lines[2].get_ydata().tolist() == [50, 51]
