"""The figures of robustness show the numbers of their tables."""

import numpy as np
import pytest
from perturbed_batches import item, model_with_pictures

from analyses.analysis.tables import rows_where
from analyses.plots.robustness import failure_figure, robustness_figure
from analyses.robustness import FailurePrediction, Occlusion, PatchShuffle, Robustness
from analyses.statistics import Resampling
from analyses.sweep import sweep

FEW = Resampling(9)
ITEMS = [item(index)[:2] for index in range(6)]


@pytest.mark.parametrize("kind", ["cls", "map"])
def test_robustness(kind: str) -> None:
    perturbations = {"hidden": Occlusion(0.5), "shuffled": PatchShuffle()}
    table = sweep(model_with_pictures(kind), ITEMS, [Robustness(perturbations, FEW)])["robustness"]
    figure = robustness_figure(table, table, title="a model")
    n_panels = 2 * len(perturbations) + 1 if kind == "cls" else len(perturbations)
    assert len(figure.axes) == n_panels
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[0].lines}
    rows = rows_where(table, {"perturbation": "hidden", "metric": "identifiability", "token_type": "patch"})
    np.testing.assert_allclose(lines["patches"], rows_where(rows, {"region": "all"}).sort_values(by="layer")["value"])
    if kind == "cls":
        drift = np.asarray(figure.axes[2].images[0].get_array())
        rows = rows_where(table, {"perturbation": "hidden", "metric": "attribution"})
        assert drift.shape == (4, 3)
        assert drift[1, 2] == rows_where(rows, {"layer": 2, "head": 1})["value"].iloc[0]
        assert drift[3, 0] == rows_where(rows, {"layer": 0, "stream": "mlp"})["value"].iloc[0]


def test_failure() -> None:
    table = sweep(model_with_pictures("cls"), ITEMS, [FailurePrediction(resampling=FEW)])["failure_prediction"]
    figure = failure_figure(table)
    assert len(figure.axes) == 5
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[1].lines}
    noise = rows_where(table, {"condition": "noise"})
    margin = rows_where(noise, {"quantity": "margin"}).sort_values(by="layer")
    np.testing.assert_allclose(lines["margin of the head"], margin["auroc"])
    confidence = rows_where(noise, {"quantity": "confidence"})["auroc"].iloc[0]
    np.testing.assert_allclose(lines["confidence"], [confidence] * 2)
    none = failure_figure(table.assign(auroc=float("nan")))
    assert not none.axes
    assert "no condition" in none.texts[0].get_text()
