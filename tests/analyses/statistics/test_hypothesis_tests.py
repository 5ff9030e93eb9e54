"""Hypothesis tests compared with loops over every relabelling."""

from itertools import combinations, product

import numpy as np
import pytest

from analyses.statistics.hypothesis_tests import (
    permutation_test,
    permutation_tests,
    pooled_permutation_test,
    signed_rank_test,
)


def extreme(null: list[float], observed: float, alternative: str) -> float:
    null_array, slack = np.array(null), 1e-9
    greater, less = (null_array >= observed - slack).mean(), (null_array <= observed + slack).mean()
    return {"greater": greater, "less": less, "two-sided": min(1.0, 2 * min(greater, less))}[alternative]


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_signed_rank_tries_every_sign(alternative):
    generator = np.random.default_rng(0)
    x, y = generator.normal(0.3, 1, 8), generator.normal(0, 1, 8)
    ranks = np.abs(x - y).argsort().argsort() + 1
    w_plus = ranks[x > y].sum()
    null = [sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product([0, 1], repeat=8)]
    test = signed_rank_test(x, y, alternative)
    assert test.p_value == pytest.approx(extreme(null, w_plus, alternative))
    assert test.statistic == (min(w_plus, 36 - w_plus) if alternative == "two-sided" else w_plus)
    assert test.rank_biserial == pytest.approx((2 * w_plus - 36) / 36)
    assert test.median_difference == pytest.approx(np.median(x - y))
    assert (test.n, test.n_zero, test.alternative) == (8, 0, alternative)


def test_signed_rank_leaves_out_pairs_without_difference():
    with_zeros = signed_rank_test([1.0, 2.0, 5.0, 7.0, 9.0], [0.0, 0.5, 5.0, 7.0, 6.0], "greater")
    assert with_zeros.n_zero == 2
    assert with_zeros.p_value == signed_rank_test([1.0, 1.5, 3.0], alternative="greater").p_value == 1 / 8


def test_signed_rank_without_any_difference():
    test = signed_rank_test([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (test.p_value, test.rank_biserial, test.statistic, test.n_zero) == (1.0, 0.0, 0.0, 3)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("paired", [False, True])
def test_permutation_test_tries_every_relabelling(paired, alternative):
    generator = np.random.default_rng(1)
    a, b = generator.normal(0.5, 1, 5), generator.normal(0, 1, 5 if paired else 4)
    if paired:
        null = [np.mean((a - b) * signs) for signs in product([1, -1], repeat=5)]
    else:
        pooled = np.concatenate([a, b])
        null = []
        for chosen in combinations(range(9), 5):
            rest = [i for i in range(9) if i not in chosen]
            null.append(pooled[list(chosen)].mean() - pooled[rest].mean())
    test = permutation_test(a, b, paired=paired, alternative=alternative)
    assert test.difference == pytest.approx(a.mean() - b.mean())
    assert test.p_value == pytest.approx(extreme(null, a.mean() - b.mean(), alternative))
    assert test.n_resamples == len(null)


def test_permutation_test_is_seeded():
    generator = np.random.default_rng(2)
    a, b = generator.normal(0.2, 1, 40), generator.normal(0, 1, 30)
    first, again, other = (permutation_test(a, b, n_resamples=199, seed=seed).p_value for seed in (0, 0, 1))
    assert first == again != other
    assert round(first * 200) == pytest.approx(first * 200)


def test_equal_relabellings_count_as_equal():
    # differences of thirds and sevenths that cancel: half of all sign flips tie with what was observed
    a, b = np.array([1 / 3, 1 / 7, 0.0, 0.1]), np.array([0.0, 1 / 7 + 1 / 3, 1e-17, 0.1])
    assert permutation_test(a, b, paired=True).p_value == 1.0
    assert permutation_test(a * 1e-9, b * 1e-9, paired=True).p_value == 1.0


def test_columns_are_tested_separately():
    generator = np.random.default_rng(3)
    a, b = generator.normal(0.2, 1, (40, 3)), generator.normal(0, 1, (30, 3))
    for column, test in enumerate(permutation_tests(a, b, n_resamples=99, seed=5)):
        assert test == permutation_test(a[:, column], b[:, column], n_resamples=99, seed=5)


def test_permutation_test_without_any_difference():
    test = permutation_test([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], paired=True)
    assert (test.difference, test.p_value, test.effect_size) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_pooled_permutation_test_reassigns_observations(alternative):
    values, counts_a, counts_b = np.array([0.0, 0.5, 1.0]), np.array([0, 2, 2]), np.array([3, 1, 1])
    a, b = np.repeat(values, counts_a), np.repeat(values, counts_b)
    pooled, null = np.concatenate([a, b]), []
    for chosen in combinations(range(9), 4):
        rest = [i for i in range(9) if i not in chosen]
        null.append(pooled[list(chosen)].mean() - pooled[rest].mean())
    test = pooled_permutation_test(counts_a, counts_b, values, alternative=alternative, n_resamples=20_000)
    assert test.difference == pytest.approx(a.mean() - b.mean())
    assert test.p_value == pytest.approx(extreme(null, a.mean() - b.mean(), alternative), abs=0.01)
    assert (test.n_a, test.n_b) == (4, 5)


def test_pairs_that_differ_by_rounding_are_equal_in_the_signed_rank_test():
    x, y = np.array([0.1 + 0.2, 1.1 + 2.2, 0.5]), np.array([0.3, 3.3, 0.5])
    test = signed_rank_test(x, y)
    assert (test.n_zero, test.p_value, test.rank_biserial) == (3, 1.0, 0.0)
    assert signed_rank_test([*x, 7.0, 9.0], [*y, 5.0, 8.0]).n_zero == 3


@pytest.mark.parametrize("scale", [1e-18, 1e12])
def test_p_values_do_not_depend_on_the_unit_of_the_values(scale):
    a, b = np.array([0.5, 0.25, 1.0, 0.75, 0.625]), np.array([0.25, 0.5, 0.125, 0.25, 0.375])
    for paired in (False, True):
        assert permutation_test(a * scale, b * scale, paired=paired).p_value == pytest.approx(
            permutation_test(a, b, paired=paired).p_value
        )
    values = np.array([0.1, 0.3, 0.7])
    tests = [pooled_permutation_test([5, 9, 20], [12, 11, 4], values * factor) for factor in (1, scale)]
    assert tests[0].p_value == tests[1].p_value


@pytest.mark.parametrize("count", [1.5, np.nan, np.inf])
def test_histograms_hold_whole_counts(count):
    floats, whole = (pooled_permutation_test(counts, [2, 3], [0.0, 1.0]) for counts in ([1.0, 2.0], [1, 2]))
    assert floats.p_value == whole.p_value
    with pytest.raises(ValueError, match=f"expected counts of observations, whole numbers, got {count}: pass counts"):
        pooled_permutation_test([1.0, 2.0], [count, 3], [0.0, 1.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: signed_rank_test([1.0, np.nan], [0.0, 0.0]), "1 of 2 numbers in x are NaN: leave those observations"),
        (lambda: signed_rank_test([1.0], [0.0]), "at least two observations in x"),
        (lambda: signed_rank_test([1.0, 2.0], [0.0, 0.0, 1.0]), "equal numbers, got 2 and 3"),
        (lambda: permutation_test([1.0], [0.0, 1.0]), "at least two observations in a"),
        (lambda: permutation_test([1.0, 2.0], [0.0, np.nan]), "1 of 2 numbers in b are NaN"),
        (lambda: pooled_permutation_test([0, 0], [1, 2], [0.0, 1.0]), "both groups need observations, got 0 and 3"),
        (lambda: pooled_permutation_test([1, 0], [1, 2], [0.0, 1.0, 2.0]), "a count for each of 3 values"),
        (lambda: pooled_permutation_test([1, 2], [2, -3], [0.0, 1.0]), "got negative counts or NaN"),
        (lambda: pooled_permutation_test([1, 2], [2, 3], [0.0, np.nan]), "got negative counts or NaN"),
        (
            lambda: pooled_permutation_test([1, 2], [2, 3], [0.0, 1.0], alternative="bigger"),
            "out of 'two-sided', 'greater', 'less', got 'bigger'",
        ),
    ],
)
def test_errors_say_what_is_wrong(call, message, bad_input):
    with pytest.raises(ValueError, match=message):
        call()
