"""AUROCs are scikit-learn's, ties and resamples included, and differences are paired."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from analyses.statistics import Resampling, auroc, bootstrap_auroc
from analyses.statistics.intervals import bootstrap_statistic


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Three scores of 40 observations, two of them with ties, and which observations are positive."""
    rng = np.random.default_rng(3)
    positive = rng.random(40) < 0.4
    scores = rng.normal(size=(40, 3)) + 0.8 * positive[:, None]
    scores[:, 1] = scores[:, 1].round()
    scores[:, 2] = scores[:, 2].round(1)
    return scores, positive


def test_numbers_are_those_of_scikit_learn(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = drawn
    expected = [roc_auc_score(positive, scores[:, column]) for column in range(3)]
    np.testing.assert_allclose(auroc(scores, positive)[0], expected, rtol=1e-12)


def by_repetition(scores: np.ndarray, positive: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The AUROCs of each resample, from its observations one by one."""
    rows = []
    for counts in times.astype(int):
        chosen = np.repeat(np.arange(len(positive)), counts)
        rows.append([roc_auc_score(positive[chosen], scores[chosen, column]) for column in range(scores.shape[1])])
    return np.array(rows)


def test_resamples_are_repeated_observations(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = drawn
    times = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=5)
    np.testing.assert_allclose(auroc(scores, positive, times), by_repetition(scores, positive, times), rtol=1e-12)


def test_intervals_are_those_of_a_loop_over_resamples(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = drawn
    found = bootstrap_auroc(scores, positive, baseline=1, resampling=Resampling(49, 0.9, 5))

    def slow(times: np.ndarray) -> np.ndarray:
        each = by_repetition(scores, positive, times)
        return np.concatenate([each, each - each[:, [1]]], axis=1)

    expected = bootstrap_statistic(slow, [40], (2, 3), 0.9, 49, 5)
    for at, interval in enumerate((found.auroc, found.difference)):
        for end in ("estimate", "low", "high"):
            np.testing.assert_allclose(getattr(interval, end), getattr(expected, end)[at], rtol=1e-10, atol=1e-12)
    assert found.difference.low[1] == found.difference.high[1] == 0


def test_without_one_of_the_two_kinds_all_is_nan() -> None:
    scores = np.random.default_rng(0).normal(size=(6, 2))
    found = bootstrap_auroc(scores, np.ones(6, dtype=bool), 0, Resampling(9))
    for interval in (found.auroc, found.difference):
        assert np.isnan([interval.estimate, interval.low, interval.high]).all()


def test_a_single_negative_observation_has_no_interval() -> None:
    scores = np.arange(12.0).reshape(6, 2)
    found = bootstrap_auroc(scores, np.array([True, True, False, True, True, True]), 0, Resampling(9))
    assert found.auroc.estimate.tolist() == [0.6, 0.6]
    assert np.isnan([found.auroc.low, found.auroc.high, found.difference.low]).all()


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    scores, positive = np.zeros((4, 2)), np.array([True, False, True, False])
    with pytest.raises(ValueError, match=r"a bool per observation, got shapes \(4, 2\) and \(3,\)"):
        bootstrap_auroc(scores, positive[:3], 0)
    with pytest.raises(ValueError, match="expected a baseline from 0 to 1, got 2"):
        bootstrap_auroc(scores, positive, 2)
    with pytest.raises(ValueError, match="8 of 8 numbers in scores are NaN"):
        bootstrap_auroc(scores * np.nan, positive, 0)
