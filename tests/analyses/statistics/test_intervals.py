"""Bootstrap intervals compared with loops over the resamples."""

import numpy as np
import pytest
from scipy import stats

from analyses.statistics.intervals import (
    Resampling,
    bootstrap_difference,
    bootstrap_interval,
    bootstrap_of_sums,
    bootstrap_ratio,
)


def test_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(0).normal(size=17)
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=200, random_state=np.random.default_rng(3)
    ).confidence_interval
    interval = bootstrap_interval(values, n_resamples=200, seed=3)
    assert float(interval.estimate) == pytest.approx(values.mean())
    assert (float(interval.low), float(interval.high)) == pytest.approx((expected.low, expected.high))


def test_ratio_resamples_observations_whole():
    generator = np.random.default_rng(0)
    tops, bottoms = generator.integers(0, 9, (11, 2, 3)), generator.integers(1, 5, (11, 2, 3))
    interval = bootstrap_ratio(tops, bottoms, n_resamples=300, level=0.8, seed=5)
    drawn = np.random.default_rng(5).integers(0, 11, (300, 11))
    for place in np.ndindex(2, 3):
        null = []
        for resample in drawn:
            null.append(sum(tops[i][place] for i in resample) / sum(bottoms[i][place] for i in resample))
        assert interval.estimate[place] == pytest.approx(tops[:, *place].sum() / bottoms[:, *place].sum())
        assert interval.low[place] == pytest.approx(np.percentile(null, 10))
        assert interval.high[place] == pytest.approx(np.percentile(null, 90))


def test_a_function_of_sums_resamples_observations_whole():
    counts = np.random.default_rng(0).integers(1, 9, (7, 2, 3))
    interval = bootstrap_of_sums(
        counts, lambda sums: (sums[:, 0] / sums[:, 1]).max(axis=-1), n_resamples=300, level=0.8, seed=5
    )
    null = []
    for resample in np.random.default_rng(5).integers(0, 7, (300, 7)):
        tops, bottoms = sum(counts[i] for i in resample)
        null.append(max(tops / bottoms))
    tops, bottoms = counts.sum(axis=0)
    assert float(interval.estimate) == pytest.approx(max(tops / bottoms))
    assert float(interval.low) == pytest.approx(np.percentile(null, 10))
    assert float(interval.high) == pytest.approx(np.percentile(null, 90))


def test_difference_resamples_each_group_separately():
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.5, 1, (9, 2)), generator.normal(0, 2, (6, 2))
    interval = bootstrap_difference(a, b, n_resamples=300, level=0.8, seed=5)
    draws = np.random.default_rng(5)
    of_a, of_b = draws.integers(0, 9, (300, 9)), draws.integers(0, 6, (300, 6))
    for column in range(2):
        null = []
        for here, there in zip(of_a, of_b, strict=True):
            null.append(np.mean([a[i, column] for i in here]) - np.mean([b[i, column] for i in there]))
        assert interval.estimate[column] == pytest.approx(a[:, column].mean() - b[:, column].mean())
        assert interval.low[column] == pytest.approx(np.percentile(null, 10))
        assert interval.high[column] == pytest.approx(np.percentile(null, 90))
    assert np.isnan(bootstrap_difference(a[:1], b).low).all()


def test_degenerate_observations():
    assert np.isnan(bootstrap_interval([2.0]).low)
    assert float(bootstrap_interval([2.0]).estimate) == 2.0
    nobody = bootstrap_ratio([[0, 1], [0, 1]], [[0, 2], [0, 2]])
    assert np.isnan(nobody.estimate[0])
    assert np.isnan(nobody.low[0])
    assert nobody.low[1] == nobody.high[1] == 0.5


def test_resamples_without_a_denominator_are_left_out():
    tops, bottoms = np.array([[3.0, 1], [0, 1], [2, 2], [1, 0]]), np.array([[2.0, 1], [0, 2], [0, 1], [0, 3]])
    interval = bootstrap_ratio(tops, bottoms, n_resamples=300, level=0.8, seed=5)
    for column in range(2):
        null = []
        for resample in np.random.default_rng(5).integers(0, 4, (300, 4)):
            denominator = sum(bottoms[i, column] for i in resample)
            if denominator:
                null.append(sum(tops[i, column] for i in resample) / denominator)
        assert len(null) == 300 or column == 0
        assert interval.low[column] == pytest.approx(np.percentile(null, 10))
        assert interval.high[column] == pytest.approx(np.percentile(null, 90))


def test_a_ratio_without_any_denominator_is_unknown_whatever_the_numerators():
    interval = bootstrap_ratio([1.0, 0.0, 2.0], [0.0, 0.0, 0.0])
    assert np.isnan([interval.estimate, interval.low, interval.high]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "at least one, got shapes"),
        (lambda: bootstrap_interval([1.0, np.nan]), "1 of 2 numbers in numerators are NaN"),
        (lambda: bootstrap_interval([1.0, 2.0], level=95), "between 0 and 1, such as 0.95, got 95"),
        (lambda: bootstrap_ratio([1.0, 2.0], [1.0]), "one shape"),
        (lambda: bootstrap_of_sums([], np.ravel), r"at least one observation, got shape \(0,\)"),
        (lambda: bootstrap_difference([], [1.0]), "same trailing axes, got shapes \\(0,\\) and \\(1,\\)"),
        (lambda: bootstrap_difference([[1.0]], [1.0]), "same trailing axes"),
        (lambda: bootstrap_difference([1.0], [np.nan, 1.0]), "1 of 2 numbers in b are NaN"),
    ],
)
def test_errors_say_what_is_wrong(call, message, bad_input):
    with pytest.raises(ValueError, match=message):
        call()


def test_resampling_passes_its_numbers_on():
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.5, 1, (9, 2)), generator.normal(2, 0.1, (9, 2))
    resampling, options = Resampling(50, level=0.8, seed=3), {"n_resamples": 50, "level": 0.8, "seed": 3}
    for found, expected in (
        (resampling.interval(a), bootstrap_interval(a, **options)),
        (resampling.ratio(a, b), bootstrap_ratio(a, b, **options)),
        (resampling.difference(a, b), bootstrap_difference(a, b, **options)),
    ):
        assert (found.low.tolist(), found.high.tolist()) == (expected.low.tolist(), expected.high.tolist())


@pytest.mark.parametrize("options", [{"n_resamples": 0}, {"level": 95.0}, {"level": 0.0}])
def test_invalid_resampling_fails_when_it_is_made(options):
    with pytest.raises(ValueError, match=r"at least 1 and a level between 0 and 1, such as 0\.95, got "):
        Resampling(**options)
