"""Hypothesis tests of paired and independent observations: scipy's, with named results and effect sizes.

Observations are images (or classes, or other independent draws), never the tokens of one image, which depend on each
other. All randomness comes from a seed. Values that differ by rounding only count as equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Num
from scipy import stats

from analyses.statistics.effect_sizes import cliffs_delta, cohens_d, rank_biserial
from analyses.statistics.intervals import resampling_batch, times_drawn
from analyses.statistics.observations import (
    Observations,
    checked_observations,
    checked_pairs,
    differences_of_pairs,
    rounding_unit,
)

__all__ = [
    "PermutationTest",
    "SignedRankTest",
    "permutation_test",
    "permutation_tests",
    "pooled_permutation_test",
    "signed_rank_test",
]

Alternative = Literal["two-sided", "greater", "less"]


@dataclass(frozen=True)
class SignedRankTest:
    """Wilcoxon's signed-rank test on paired observations.

    Attributes:
        statistic: Sum of the ranks of positive differences, W+ (two-sided: the smaller of W+ and W-).
        p_value: Probability of a statistic at least as extreme if differences are symmetric around zero; 1 if all are
            zero.
        rank_biserial: `(W+ - W-) / (W+ + W-)`, -1 to 1; 0 if all differences are zero.
        median_difference: Median of `x - y`.
        n: Number of pairs.
        n_zero: Number of pairs without a difference, which the test leaves out.
        alternative: The alternative hypothesis: `x - y` is `"greater"` or `"less"` than zero, or `"two-sided"`.
    """

    statistic: float
    p_value: float
    rank_biserial: float
    median_difference: float
    n: int
    n_zero: int
    alternative: Alternative


@dataclass(frozen=True)
class PermutationTest:
    """Permutation test of a difference of means.

    Attributes:
        difference: Mean of `a` minus mean of `b`.
        p_value: Share of relabellings with a difference at least as extreme; if they are random, the observed one
            counts as one of them.
        effect_size: Cohen's d for pairs, Cliff's delta for independent groups, NaN for pooled histograms.
        n_a: Observations in `a`.
        n_b: Observations in `b`.
        n_resamples: Number of relabellings.
        paired: Whether relabelling swaps within pairs.
        alternative: The alternative hypothesis: the difference is `"greater"` or `"less"` than zero, or `"two-sided"`.
    """

    difference: float
    p_value: float
    effect_size: float
    n_a: int
    n_b: int
    n_resamples: int
    paired: bool
    alternative: Alternative


def signed_rank_test(
    x: Observations, y: Observations | float = 0.0, alternative: Alternative = "two-sided"
) -> SignedRankTest:
    """Wilcoxon's signed-rank test of paired observations (`scipy.stats.wilcoxon`; zero differences are left out).

    The paper uses it to compare a model's identifiability with that of the freshly initialised model (section 4).

    Args:
        x: One number per observation.
        y: The paired numbers; 0 by default, for differences.
        alternative: `"greater"` if `x` is expected to be above `y`.

    Raises:
        ValueError: If there are fewer than two pairs, or NaNs.

    >>> test = signed_rank_test([1.0, 2.0, 3.5, 4.0, 6.0], [0.5, 2.5, 2.0, 3.0, 4.0], alternative="greater")
    >>> test.rank_biserial, test.p_value
    (0.8, 0.09375)
    """
    x, y = checked_pairs(x, y)
    differences = differences_of_pairs(x, y)
    n_zero = int(np.count_nonzero(differences == 0))
    if n_zero == len(differences):
        return SignedRankTest(0.0, 1.0, 0.0, 0.0, len(x), n_zero, alternative)
    result: Any = stats.wilcoxon(differences, alternative=alternative)
    return SignedRankTest(
        statistic=float(result.statistic),
        p_value=float(result.pvalue),
        rank_biserial=rank_biserial(x, y),
        median_difference=float(np.median(differences)),
        n=len(x),
        n_zero=n_zero,
        alternative=alternative,
    )


def permutation_test(
    a: Observations,
    b: Observations,
    *,
    paired: bool = False,
    alternative: Alternative = "two-sided",
    n_resamples: int = 9999,
    seed: int = 0,
) -> PermutationTest:
    """Test whether the means of `a` and `b` differ (`scipy.stats.permutation_test`).

    Independent groups: observations are reassigned to groups of the same sizes. Paired: the two numbers of a pair are
    swapped, which flips the sign of their difference. If there are no more than `n_resamples` relabellings, all are
    tried, and the p-value is exact.

    Raises:
        ValueError: If there are fewer than two observations, unequal numbers of paired ones, or NaNs.

    >>> permutation_test([3.1, 2.9, 3.5, 3.0], [2.0, 2.2, 1.9, 2.4], alternative="greater").p_value == 1 / 70
    True
    >>> permutation_test([3.1, 2.9, 3.5], [2.0, 2.2, 1.9], paired=True, alternative="greater").p_value == 1 / 8
    True
    """
    a, b = checked_pairs(a, b) if paired else (checked_observations(a, "a"), checked_observations(b, "b"))
    return permutation_tests(
        a[:, None], b[:, None], paired=paired, alternative=alternative, n_resamples=n_resamples, seed=seed
    )[0]


def permutation_tests(
    a: Float[np.ndarray, "observation test"],
    b: Float[np.ndarray, "other_observation test"],
    *,
    paired: bool = False,
    alternative: Alternative = "two-sided",
    n_resamples: int = 9999,
    seed: int = 0,
) -> list[PermutationTest]:
    """`permutation_test` of each column, such as each block; all columns share the same relabellings.

    >>> a, b = np.array([[1.0, 5.0], [2.0, 6.0]]), np.array([[1.0, 1.0], [2.0, 2.0]])
    >>> [test.p_value for test in permutation_tests(a, b, alternative="greater")]
    [0.8333333333333334, 0.16666666666666666]
    """
    columns = range(a.shape[1])
    pooled, n_total = np.concatenate([a, b]), len(a) + len(b)
    # relabellings with equal differences must stay equal, whatever the order of summation
    unit = rounding_unit(pooled)

    def paired_difference(signs: np.ndarray, axis: int = -1) -> np.ndarray:
        """[resample test] from signs [resample observation]: scipy flips the signs of ones."""
        return np.round(signs @ (a - b) / len(a) / unit)

    def group_difference(to_a: np.ndarray, to_b: np.ndarray, axis: int = -1) -> np.ndarray:
        """[resample test] from the indices [resample observation] that scipy assigns to each group."""
        sum_a = times_drawn(np.atleast_2d(to_a).astype(np.int64), n_total) @ pooled
        difference = np.round((sum_a / len(a) - (pooled.sum(axis=0) - sum_a) / len(b)) / unit)
        return difference if to_a.ndim > 1 else difference[0]

    if paired:
        pairs = [checked_pairs(a[:, column], b[:, column]) for column in columns]
        effect_sizes = [cohens_d(x, y, paired=True) for x, y in pairs]
        samples, difference, kind = (np.ones(len(a)),), paired_difference, "samples"
    else:
        groups = [(checked_observations(a[:, c], "a"), checked_observations(b[:, c], "b")) for c in columns]
        effect_sizes = [cliffs_delta(x, y) for x, y in groups]
        samples = np.arange(len(a)), np.arange(len(a), n_total)
        difference, kind = group_difference, "independent"
    result = stats.permutation_test(
        samples,
        difference,
        permutation_type=kind,
        vectorized=True,
        n_resamples=n_resamples,
        batch=resampling_batch(n_total),
        alternative=alternative,
        random_state=np.random.default_rng(seed),  # pyright: ignore[reportCallIssue]  (`rng` from scipy 1.15)
    )
    return [
        PermutationTest(
            difference=float(a[:, column].mean() - b[:, column].mean()),
            p_value=float(result.pvalue[column]),
            effect_size=effect_sizes[column],
            n_a=len(a),
            n_b=len(b),
            n_resamples=len(result.null_distribution),
            paired=paired,
            alternative=alternative,
        )
        for column in columns
    ]


def pooled_permutation_test(
    counts_a: Num[np.ndarray, "bin"] | Sequence[float | int],
    counts_b: Num[np.ndarray, "bin"] | Sequence[float | int],
    values: Num[np.ndarray, "bin"] | Sequence[float | int],
    *,
    alternative: Alternative = "greater",
    n_resamples: int = 300,
    seed: int = 0,
) -> PermutationTest:
    """Permutation test on two groups of pooled observations, given as histograms.

    Reassigning pooled observations to groups of the same sizes makes group a's histogram multivariate hypergeometric,
    so the histogram is drawn from that distribution, without the single observations. The published code runs this
    test on the tokens of all images pooled (300 shuffles, one-sided). The tokens of an image depend on each other, so
    its p-values are too small: use it for comparison only, and report `permutation_test` on images.

    Args:
        counts_a: How often each value occurs in group a.
        counts_b: How often each value occurs in group b.
        values: The values.
        alternative: The alternative hypothesis.
        n_resamples: Number of relabellings.
        seed: Seed of the relabellings.

    Raises:
        ValueError: If a group is empty, shapes differ, a count is negative or not a whole number, a value is NaN, or
            the alternative is unknown.

    >>> pooled_permutation_test([0, 10, 90], [50, 40, 10], [0.0, 0.5, 1.0], n_resamples=99).p_value
    0.01
    """
    given = np.stack([np.asarray(counts_a), np.asarray(counts_b)])
    values = np.asarray(values, dtype=np.float64)
    fractions = given[~(np.isfinite(given) & (given == np.floor(given)))]
    if len(fractions):
        raise ValueError(f"expected counts of observations, whole numbers, got {fractions[0]}: pass counts, not shares")
    counts = given.astype(np.int64)
    if counts.shape != (2, len(values)):
        raise ValueError(f"expected a count for each of {len(values)} values, got shape {counts.shape[1:]}")
    if counts.min(initial=0) < 0 or np.isnan(values).any():
        raise ValueError("expected counts of 0 or more, and values that are numbers, got negative counts or NaN")
    if alternative not in get_args(Alternative):
        known = ", ".join(map(repr, get_args(Alternative)))
        raise ValueError(f"expected an alternative out of {known}, got {alternative!r}")
    n_a, n_b = (int(n) for n in counts.sum(axis=1))
    if min(n_a, n_b) == 0:
        raise ValueError(f"both groups need observations, got {n_a} and {n_b}")
    total = counts.sum(axis=0)
    # one draws observations, the other bins; measured, one observation costs a 25th of a bin
    method = "count" if n_a + n_b < 25 * len(total) else "marginals"
    draws = np.random.default_rng(seed).multivariate_hypergeometric(total, n_a, size=n_resamples, method=method)
    null = draws @ values / n_a - (total - draws) @ values / n_b
    difference = float(counts[0] @ values / n_a - counts[1] @ values / n_b)
    slack = rounding_unit(values)  # rounding may put an equal draw on either side of the observed difference
    n_greater = int(np.count_nonzero(null >= difference - slack)) + 1
    n_less = int(np.count_nonzero(null <= difference + slack)) + 1
    n_extreme = {"greater": n_greater, "less": n_less, "two-sided": 2 * min(n_greater, n_less)}[alternative]
    p_value = min(1.0, n_extreme / (n_resamples + 1))
    return PermutationTest(difference, p_value, float("nan"), n_a, n_b, n_resamples, False, alternative)
