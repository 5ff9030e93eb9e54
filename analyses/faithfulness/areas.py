"""The area under a removal curve by a named rule, with its bootstrap interval over images."""

from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from analyses.statistics.intervals import Interval, times_drawn

__all__ = ["AucRule", "auc_interval", "removal_auc"]

AucRule = Literal["published", "trapezoid"]


def removal_auc(
    accuracy: Float[np.ndarray, "*axes step"], n_removed: Any, n_patches: int, rule: AucRule = "published"
) -> Float[np.ndarray, "*axes"]:
    """Area under the curve of accuracy against removals, by one of two rules.

    - `published`: `sum(accuracies) / (max(accuracies) · number of patches)` over 1 to `n_patches - 1` removals, as in
      the released code: the whole image and the image without patches do not count. Steps in between that were left
      out are interpolated. The area is relative to the curve's own maximum, and below 1 even if removal has no effect.
    - `trapezoid`: the area over the share of patches removed, from the first step to the last, divided by its width:
      the mean accuracy, by the trapezoid rule.

    Args:
        accuracy: At each step, 0 to 1.
        n_removed: Number of removed patches at each step.
        n_patches: Number of patches of a whole image.
        rule: `published` or `trapezoid`.

    Raises:
        ValueError: If there is no such rule, or there are fewer than two steps.

    >>> float(removal_auc(np.array([1.0, 0.8, 0.4, 0.0]), [0, 1, 2, 3], 3))  # (0.8 + 0.4) / (0.8 * 3)
    0.5
    >>> round(float(removal_auc(np.array([1.0, 0.8, 0.4, 0.0]), [0, 1, 2, 3], 3, "trapezoid")), 6)
    0.566667
    """
    if rule not in get_args(AucRule):
        raise ValueError(f"expected rule 'published' or 'trapezoid', got {rule!r}")
    steps = np.asarray(n_removed, dtype=np.float64)
    if len(steps) < 2 or accuracy.shape[-1] != len(steps):
        raise ValueError(f"expected an accuracy for each of at least two steps, got {accuracy.shape} for {len(steps)}")
    if rule == "trapezoid":
        return np.asarray(np.trapezoid(accuracy, steps, axis=-1) / (steps[-1] - steps[0]))
    counted = np.arange(max(1, steps[0]), min(n_patches - 1, steps[-1]) + 1)
    before = np.clip(np.searchsorted(steps, counted, side="right") - 1, 0, len(steps) - 2)
    share = (counted - steps[before]) / (steps[before + 1] - steps[before])
    interpolated = accuracy[..., before] * (1 - share) + accuracy[..., before + 1] * share
    largest = interpolated.max(axis=-1)
    return np.asarray(interpolated.sum(axis=-1) / (np.where(largest > 0, largest, np.nan) * n_patches))


def auc_interval(
    correct: Bool[np.ndarray, "image *axes step"],
    n_removed: Any,
    n_patches: int,
    rule: AucRule = "published",
    *,
    level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> Interval:
    """`removal_auc` with its percentile bootstrap interval over images; NaN where no image is ever correct.

    >>> correct = np.random.default_rng(0).random((50, 17)) < np.linspace(0.9, 0.1, 17)
    >>> interval = auc_interval(correct, range(17), n_patches=16)
    >>> bool(interval.low < interval.estimate < interval.high)
    True
    """
    rows = correct.reshape(len(correct), -1).astype(np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(rows), size=(n_resamples, len(rows)))
    accuracy = (times_drawn(drawn, len(rows)) @ rows / len(rows)).reshape(-1, *correct.shape[1:])
    estimate = removal_auc(correct.mean(axis=0), n_removed, n_patches, rule)
    ends = np.quantile(removal_auc(accuracy, n_removed, n_patches, rule), [(1 - level) / 2, (1 + level) / 2], axis=0)
    if len(rows) < 2:
        ends = np.full_like(ends, np.nan)
    return Interval(np.asarray(estimate), np.asarray(ends[0]), np.asarray(ends[1]), level)
