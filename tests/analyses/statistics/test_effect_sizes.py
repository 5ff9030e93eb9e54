"""Effect sizes compared with their definitions."""

import numpy as np
import pytest

from analyses.statistics.effect_sizes import cliffs_delta, cohens_d, rank_biserial


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


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_differences_that_rounding_explains_count_as_none(scale):
    x = scale * np.array([0.1 + 0.2, 0.7, 1.1 + 2.2, 5.0])
    y = scale * np.array([0.3, 0.7, 3.3, 5.0])
    assert (x != y).any()
    assert cohens_d(x, y, paired=True) == cohens_d(x, y) == rank_biserial(x, y) == 0.0
    assert cliffs_delta(x[[0, 2]], y[[0, 2]]) == 0.0


def test_a_spread_that_rounding_explains_counts_as_none():
    x = np.array([0.4, 0.8, 1.6, 0.3])
    differences = x + 0.1 - x
    assert 0 < differences.std(ddof=1) < 1e-15
    assert cohens_d(x + 0.1, x, paired=True) == np.inf
    assert cohens_d(x, x + 0.1, paired=True) == -np.inf
    assert cohens_d([0.1 + 0.2, 0.3], [1.1 + 2.2, 3.3]) == -np.inf
