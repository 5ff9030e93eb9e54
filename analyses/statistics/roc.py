"""The area under the ROC curve of scores, with bootstrap intervals, and the paired difference of two scores."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Num

from analyses.statistics.intervals import Interval, Resampling, bootstrap_statistic
from analyses.statistics.observations import refuse_nan

__all__ = ["AurocIntervals", "auroc", "bootstrap_auroc"]


@dataclass(frozen=True)
class AurocIntervals:
    """AUROCs of scores, and their differences from that of a baseline, on the same resamples of observations.

    Attributes:
        auroc: Of each score.
        difference: Of each score, minus that of the baseline.
    """

    auroc: Interval
    difference: Interval


def auroc(
    scores: Num[np.ndarray, "observation score"],
    positive: Bool[np.ndarray, "observation"],
    times: Num[np.ndarray, "resample observation"] | None = None,
) -> Float[np.ndarray, "resample score"]:
    """The probability that a positive observation has a greater score than a negative one; ties count one half.

    Args:
        scores: One column per score.
        positive: Which observations are positive.
        times: How often each observation was drawn, for each resample; once by default.

    Returns:
        A row for each resample; NaN where it has no positive or no negative observation.

    >>> auroc(np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([False, False, True, True]))
    array([[0.75]])
    """
    weights = np.ones((1, len(positive))) if times is None else np.asarray(times, dtype=np.float64)
    result = np.empty((len(weights), scores.shape[1]))
    n_positive, n_negative = weights[:, positive].sum(axis=1), weights[:, ~positive].sum(axis=1)
    for column in range(scores.shape[1]):
        order = np.argsort(scores[:, column], kind="stable")
        ordered = scores[order, column]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # of tied observations
        drawn, is_positive = weights[:, order], positive[order]
        above = np.add.reduceat(np.where(is_positive, drawn, 0), starts, axis=1)
        below = np.add.reduceat(np.where(is_positive, 0, drawn), starts, axis=1)
        won = (above * (below.cumsum(axis=1) - below / 2)).sum(axis=1)
        pairs = n_positive * n_negative
        result[:, column] = np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)
    return result


def bootstrap_auroc(
    scores: Num[np.ndarray, "observation score"],
    positive: Bool[np.ndarray, "observation"],
    baseline: int,
    resampling: Resampling = Resampling(),
) -> AurocIntervals:
    """AUROCs with percentile bootstrap intervals over observations, and their paired differences from a baseline.

    Resamples without a positive or a negative observation are left out. The interval is NaN where there is only one of
    either kind, and the estimate, too, where there is none.

    Args:
        scores: One column per score.
        positive: Which observations are positive.
        baseline: The column of the baseline.
        resampling: The bootstrap.

    Raises:
        ValueError: If there is no observation, shapes differ, there is a NaN, or no such column.

    >>> scores, positive = np.array([[0.1, 3], [0.4, 2], [0.35, 1], [0.8, 4]]), np.array([False, False, True, True])
    >>> found = bootstrap_auroc(scores, positive, baseline=1, resampling=Resampling(99))
    >>> found.auroc.estimate, found.difference.estimate
    (array([0.75, 0.5 ]), array([0.25, 0.  ]))
    """
    if scores.ndim != 2 or not len(scores) or positive.shape != scores.shape[:1]:
        raise ValueError(
            f"expected scores [observation score] and a bool per observation, got shapes {scores.shape} and "
            f"{positive.shape}"
        )
    if not 0 <= baseline < scores.shape[1]:
        raise ValueError(f"expected a baseline from 0 to {scores.shape[1] - 1}, got {baseline}")
    refuse_nan(scores, "scores")

    def both(times: np.ndarray) -> np.ndarray:
        found = auroc(scores, positive, times)
        return np.concatenate([found, found - found[:, [baseline]]], axis=1)

    n = scores.shape[1]
    found = bootstrap_statistic(both, [len(scores)], (2, n), resampling.level, resampling.n_resamples, resampling.seed)
    known = 1.0 if min(positive.sum(), (~positive).sum()) > 1 else np.nan
    parts = [Interval(found.estimate[at], found.low[at] * known, found.high[at] * known, found.level) for at in (0, 1)]
    return AurocIntervals(*parts)
