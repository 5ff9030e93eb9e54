"""Quantities equal loops over images and blocks; AUROCs are scikit-learn's, and a planted predictor is found."""

import numpy as np
import pytest
import torch
from perturbed_batches import item, model_with_pictures
from sklearn.metrics import roc_auc_score

from analyses.analysis.tables import rows_where
from analyses.robustness import FailurePrediction, Occlusion, failure_names, failure_quantities, predict_failure
from analyses.statistics import Resampling
from analyses.sweep import sweep

FEW = Resampling(49)


@torch.no_grad()
@pytest.mark.parametrize("kind_name", ["cls", "gap_registers_layerscale", "map"])
def test_quantities_are_those_of_loops(kind_name: str) -> None:
    model = model_with_pictures(kind_name)
    images = torch.stack([item(index)[0] for index in range(3)])
    logits, cache = model.run_with_cache(images, names_filter=failure_names(model.cfg))
    found = failure_quantities(model, cache, logits)
    for layer in range(3):
        for image in range(3):
            stream = cache["resid_post", layer][image]
            read = model(stream[None], start_at_layer=3)[0]
            largest, second = sorted(read.tolist())[-1:-3:-1]
            assert float(found["margin"][layer, image]) == pytest.approx(largest - second, abs=1e-5)
            top = [int(model.class_logits(token).argmax()) for token in stream[model.token_layout.patches]]
            agreeing = np.mean([one == int(read.argmax()) for one in top])
            assert float(found["agreement"][layer, image]) == pytest.approx(agreeing)
            supporting = np.mean([one == int(logits[image].argmax()) for one in top])
            assert float(found["support"][layer, image]) == pytest.approx(supporting)
    assert torch.equal(found["agreement"][-1], found["support"][-1])


def test_tables_are_scikit_learns_on_clean_and_perturbed_images() -> None:
    model = model_with_pictures("cls")
    items = []
    for index in range(12):
        image = item(index)[0]
        answer = int(model(image[None]).argmax())
        items.append((image, answer if index % 3 else (answer + 1) % 7))
    analysis = FailurePrediction({"hidden": Occlusion(0.5)}, FEW)
    table = sweep(model, items, [analysis], batch_size=5)["failure_prediction"]
    assert len(table) == 2 * (1 + 3 * 3)
    images, labels = torch.stack([one for one, _ in items]), torch.tensor([label for _, label in items])
    with torch.no_grad():
        logits, cache = model.run_with_cache(images, names_filter=failure_names(model.cfg))
    right = (logits.argmax(dim=1) == labels).numpy()
    quantities = failure_quantities(model, cache, logits)
    clean = rows_where(table, {"condition": "clean"})
    assert set(clean["n_wrong"]) == {4}
    baseline = roc_auc_score(right, logits.double().softmax(dim=1).amax(dim=1).numpy())
    for row in clean.to_dict("records"):
        if row["quantity"] == "confidence":
            assert row["auroc"] == pytest.approx(baseline)
            continue
        expected = roc_auc_score(right, quantities[str(row["quantity"])][int(row["layer"])].numpy())
        assert row["auroc"] == pytest.approx(expected)
        assert row["value"] == pytest.approx(expected - baseline)
        assert row["value_low"] <= row["value"] + 1e-9
        assert row["low"] <= row["auroc"] <= row["high"]


def test_a_planted_predictor_is_better_than_the_confidence_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    correct = rng.random(300) < 0.7
    confidence = rng.normal(size=300) + 0.7 * correct
    quantities = {
        "confidence": confidence,
        "planted": rng.normal(size=300) + 2.5 * correct,
        "noise": rng.normal(size=300),
    }
    table = predict_failure(quantities, correct, resampling=Resampling(199)).set_index("quantity")
    assert table.loc["planted", "value_low"] > 0
    assert table.loc["noise", "value_high"] < 0
    assert table.loc["noise", "low"] < 0.5 < table.loc["noise", "high"]


def test_without_errors_there_is_nothing_to_predict() -> None:
    table = predict_failure({"confidence": np.array([0.9, 0.8])}, np.array([True, True]), resampling=FEW)
    assert table[["auroc", "low", "high"]].isna().all().all()
    assert table["n_wrong"].tolist() == [0]


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    correct = np.array([True, False])
    with pytest.raises(ValueError, match="expected the baseline 'confidence' among the quantities margin"):
        predict_failure({"margin": np.array([1.0, 2.0])}, correct)
    with pytest.raises(ValueError, match="expected a number of 'margin' for each of 2 images, got 3"):
        predict_failure({"confidence": np.array([1.0, 2.0]), "margin": np.zeros(3)}, correct)
    with pytest.raises(ValueError, match="'clean' names the unperturbed images"):
        FailurePrediction({"clean": Occlusion(0.5)})
