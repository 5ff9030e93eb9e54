"""AUROC and F1 equal scikit-learn's and loops over pairs of images and thresholds, with ties."""

import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from analyses.dictionaries import auroc, best_f1, f1_at
from analyses.dictionaries.scores import ranking


@pytest.fixture
def values() -> torch.Tensor:
    """[image feature], with many ties at zero, a constant and a half-precision feature."""
    values = torch.randn(23, 6).relu()
    values[:, 3] = 1.5
    values[:, 4] = values[:, 4].half().float().round(decimals=1)
    return values


@pytest.fixture
def truth() -> torch.Tensor:
    """[image value]; the last value is shown by no image."""
    truth = torch.rand(23, 4) < torch.tensor([0.5, 0.2, 0.9, 0.0])
    truth[0, :3] = torch.tensor([True, True, False])
    truth[1, :3] = torch.tensor([False, False, True])
    return truth


def test_auroc_equals_scikit_learn_and_the_loop_over_pairs(values: torch.Tensor, truth: torch.Tensor) -> None:
    areas = auroc(values, truth)
    assert areas.shape == (6, 4)
    assert areas[:, 3].isnan().all()
    for feature in range(6):
        for value in range(3):
            known = roc_auc_score(truth[:, value].numpy(), values[:, feature].numpy())
            assert float(areas[feature, value]) == pytest.approx(float(known), abs=1e-12)
    wins = [
        1.0 if values[i, 0] > values[j, 0] else 0.5 if values[i, 0] == values[j, 0] else 0.0
        for i in range(23)
        for j in range(23)
        if truth[i, 1] and not truth[j, 1]
    ]
    assert float(areas[0, 1]) == pytest.approx(sum(wins) / len(wins), abs=1e-12)
    assert areas[3, :3].tolist() == [0.5] * 3


def test_f1_is_the_best_of_all_thresholds(
    values: torch.Tensor, truth: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = best_f1(values, truth)
    monkeypatch.setattr(ranking, "CHUNK_ELEMENTS", 2 * truth.numel())
    f1, thresholds = best_f1(values, truth)
    assert torch.equal(whole[0], f1)
    assert torch.equal(whole[1], thresholds)
    for feature in range(6):
        for value in range(4):
            candidates = sorted(set(values[:, feature].tolist()), reverse=True)
            scores = [
                f1_score(truth[:, value].numpy(), (values[:, feature] >= at).numpy(), zero_division=0)  # pyright: ignore
                for at in candidates
            ]
            assert float(f1[feature, value]) == pytest.approx(max(scores), abs=1e-12)
            assert float(thresholds[feature, value]) == candidates[scores.index(max(scores))]


def test_f1_at_thresholds_equals_scikit_learn(values: torch.Tensor, truth: torch.Tensor) -> None:
    thresholds = torch.tensor([0.3, 1.0, 0.7, 5.0])
    found = f1_at(values[:, :4], thresholds, truth)
    for i in range(4):
        expected = f1_score(truth[:, i].numpy(), (values[:, i] >= thresholds[i]).numpy(), zero_division=0)  # pyright: ignore
        assert float(found[i]) == pytest.approx(float(expected), abs=1e-12)


def test_errors_say_what_came(bad_input: None) -> None:
    with pytest.raises(ValueError, match="of the same images, got 3 and 4 images"):
        auroc(torch.zeros(3, 2), torch.zeros(4, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one image to choose thresholds on"):
        best_f1(torch.zeros(0, 2), torch.zeros(0, 1, dtype=torch.bool))
