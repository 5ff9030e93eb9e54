"""Effect sizes of pairs and of independent groups; values that differ by rounding only count as equal."""

import numpy as np
from scipy import stats

from analyses.statistics.observations import (
    Observations,
    checked_observations,
    checked_pairs,
    differences_of_pairs,
    rounding_steps,
    rounding_unit,
)

__all__ = ["cliffs_delta", "cohens_d", "rank_biserial"]


def rank_biserial(x: Observations, y: Observations | float = 0.0) -> float:
    """Matched-pairs rank-biserial correlation `(W+ - W-) / (W+ + W-)`: -1 to 1, 0 without differences.

    >>> rank_biserial([1.0, 2.0, 3.0], [0.0, 0.0, 6.0])
    0.0
    """
    x, y = checked_pairs(x, y)
    differences = differences_of_pairs(x, y)
    differences = differences[differences != 0]
    if not len(differences):
        return 0.0
    signed = np.sign(differences) * stats.rankdata(np.abs(differences))
    return float(signed.sum() / np.abs(signed).sum())


def cliffs_delta(a: Observations, b: Observations) -> float:
    """Share of pairs, one observation from each group, in which `a` is greater, minus the share in which it is smaller.

    >>> cliffs_delta([3, 4, 5], [1, 2, 4])
    0.6666666666666667
    """
    a, b = checked_observations(a, "a"), checked_observations(b, "b")
    unit = rounding_unit(np.concatenate([a, b]))
    u = stats.mannwhitneyu(rounding_steps(a, unit), rounding_steps(b, unit), method="asymptotic").statistic
    return float(2 * u / (len(a) * len(b)) - 1)


def cohens_d(a: Observations, b: Observations, *, paired: bool = False) -> float:
    """Difference of means in standard deviations: those of the differences if `paired`, else pooled over the groups.

    0 if the means are equal; infinite if they differ and there is no variance. A difference or a spread within the
    rounding of the values (1e-12 of the largest) counts as zero.

    >>> cohens_d([2.0, 4.0, 6.0], [1.0, 2.0, 3.0], paired=True)
    2.0
    """
    if paired:
        a, b = checked_pairs(a, b)
        difference, spread = (a - b).mean(), (a - b).std(ddof=1)
    else:
        a, b = checked_observations(a, "a"), checked_observations(b, "b")
        difference = a.mean() - b.mean()
        squares = a.var(ddof=1) * (len(a) - 1) + b.var(ddof=1) * (len(b) - 1)
        spread = np.sqrt(squares / (len(a) + len(b) - 2))
    unit = rounding_unit(np.concatenate([a, b]))
    if abs(difference) <= unit:
        return 0.0
    return float(difference / spread) if spread > unit else float(np.copysign(np.inf, difference))
