"""Effect sizes and bootstrap intervals, against their definitions."""

import numpy as np
import pytest
from scipy import stats

from analyses.statistics.effect_sizes import cliffs_delta, cohens_d, rank_biserial
from analyses.statistics.intervals import bootstrap_difference, bootstrap_interval, bootstrap_ratio


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 6, 9).astype(float), generator.integers(0, 5, 9).astype(float)


def test_rank_biserial_sums_signed_ranks(pair):
    x, y = pair
    differences = [a - b for a, b in zip(x, y, strict=True) if a != b]
    favourable = unfavourable = 0.0
    for d in differences:
        smaller = sum(abs(other) < abs(d) for other in differences)
        equal = sum(abs(other) == abs(d) for other in differences)
        rank = smaller + (equal + 1) / 2
        favourable, unfavourable = favourable + rank * (d > 0), unfavourable + rank * (d < 0)
    assert rank_biserial(x, y) == pytest.approx((favourable - unfavourable) / (favourable + unfavourable))
    assert rank_biserial([1.0, 2.0], [1.0, 2.0]) == 0.0


def test_cliffs_delta_compares_every_pair(pair):
    a, b = pair[0], pair[1][:5]
    expected = np.mean([float(x > y) - float(x < y) for x in a for y in b])
    assert cliffs_delta(a, b) == pytest.approx(expected)
    assert cliffs_delta([1.0, 1.0], [1.0, 1.0]) == 0.0


def test_cohens_d(pair):
    a, b = pair[0], pair[1][:5]
    pooled = np.sqrt((((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / (9 + 5 - 2))
    assert cohens_d(a, b) == pytest.approx((a.mean() - b.mean()) / pooled)
    x, y = pair
    assert cohens_d(x, y, paired=True) == pytest.approx((x - y).mean() / (x - y).std(ddof=1))
    assert cohens_d([1.0, 1.0], [1.0, 1.0]) == 0.0
    assert cohens_d([1.0, 1.0], [2.0, 2.0]) == -np.inf


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


def test_difference_resamples_each_group_for_itself():
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "at least one, got shapes"),
        (lambda: bootstrap_interval([1.0, np.nan]), "1 of 2 numbers in numerators are NaN"),
        (lambda: bootstrap_interval([1.0, 2.0], level=95), "between 0 and 1, such as 0.95, got 95"),
        (lambda: bootstrap_ratio([1.0, 2.0], [1.0]), "one shape"),
        (lambda: bootstrap_difference([], [1.0]), "same trailing axes, got shapes \\(0,\\) and \\(1,\\)"),
        (lambda: bootstrap_difference([[1.0]], [1.0]), "same trailing axes"),
        (lambda: bootstrap_difference([1.0], [np.nan, 1.0]), "1 of 2 numbers in b are NaN"),
        (lambda: cliffs_delta([1.0], [1.0, 2.0]), "at least two observations in a"),
        (lambda: cohens_d([[1.0, 2.0]], [1.0, 2.0]), "one number each"),
    ],
)
def test_errors_say_what_is_wrong(call, message, bad_input):
    with pytest.raises(ValueError, match=message):
        call()
