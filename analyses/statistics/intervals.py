"""Percentile bootstrap intervals of means, ratios and differences."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num
from scipy import stats

from analyses.statistics.observations import refuse_nan

__all__ = [
    "Interval",
    "Resampling",
    "bootstrap_difference",
    "bootstrap_interval",
    "bootstrap_of_sums",
    "bootstrap_ratio",
    "bootstrap_statistic",
    "resampling_batch",
    "times_drawn",
]

# Numbers that scipy's resampling may hold at a time.
_RESAMPLED_NUMBERS = 2**22


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap confidence interval, for each of the trailing axes of the observations."""

    estimate: Float[np.ndarray, "*axes"]
    low: Float[np.ndarray, "*axes"]
    high: Float[np.ndarray, "*axes"]
    level: float


@dataclass(frozen=True)
class Resampling:
    """The number of resamples, level and seed of bootstrap intervals and permutation tests.

    Raises:
        ValueError: If `n_resamples` is below 1, or the level is not between 0 and 1: before a sweep starts.
    """

    n_resamples: int = 999
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_resamples < 1 or not 0 < self.level < 1:
            raise ValueError(
                f"expected n_resamples of at least 1 and a level between 0 and 1, such as 0.95, got {self.n_resamples} "
                f"and {self.level}"
            )

    def interval(self, observations: Num[np.ndarray, "observation *axes"]) -> Interval:
        """`bootstrap_interval` of the mean."""
        return bootstrap_interval(observations, **dataclasses.asdict(self))

    def ratio(
        self, numerators: Num[np.ndarray, "observation *axes"], denominators: Num[np.ndarray, "observation *axes"]
    ) -> Interval:
        """`bootstrap_ratio` of two sums."""
        return bootstrap_ratio(numerators, denominators, **dataclasses.asdict(self))

    def of_sums(
        self, sums: Num[np.ndarray, "observation *axes"], statistic: Callable[[np.ndarray], np.ndarray]
    ) -> Interval:
        """`bootstrap_of_sums` of any function of sums."""
        return bootstrap_of_sums(sums, statistic, **dataclasses.asdict(self))

    def difference(
        self, a: Num[np.ndarray, "observation *axes"], b: Num[np.ndarray, "other_observation *axes"]
    ) -> Interval:
        """`bootstrap_difference` of two independent groups."""
        return bootstrap_difference(a, b, **dataclasses.asdict(self))


def bootstrap_interval(
    observations: Num[np.ndarray, "observation *axes"] | Sequence[Any],
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a mean (`scipy.stats.bootstrap`), for each of the trailing axes.

    All axes share the same resamples, so blocks keep their dependence. The interval of a single observation is NaN.

    Raises:
        ValueError: If there is no observation, or a NaN, or the level is not between 0 and 1.

    >>> interval = bootstrap_interval([0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    >>> float(interval.low) < float(interval.estimate) == 0.75 < float(interval.high)
    True
    """
    values = np.asarray(observations, dtype=np.float64)
    return bootstrap_ratio(values, np.ones_like(values), level=level, n_resamples=n_resamples, seed=seed)


def bootstrap_ratio(
    numerators: Num[np.ndarray, "observation *axes"] | Sequence[Any],
    denominators: Num[np.ndarray, "observation *axes"] | Sequence[Any],
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of `sum(numerators) / sum(denominators)`: a mean over tokens, with images as observations.

    A resample whose denominators are all zero has no ratio: the interval's ends are percentiles of the others, so it
    holds for resamples that have a ratio. Where all denominators are zero, the estimate and its interval are NaN.

    Raises:
        ValueError: If there is no observation, shapes differ, or there is a NaN.

    >>> float(bootstrap_ratio([1, 0, 3], [2, 1, 5]).estimate)
    0.5
    """
    top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if top.shape != bottom.shape or top.ndim == 0 or len(top) == 0:
        raise ValueError(f"expected observations of one shape, at least one, got shapes {top.shape} and {bottom.shape}")
    refuse_nan(top, "numerators")
    refuse_nan(bottom, "denominators")

    columns = np.stack([top.reshape(len(top), -1), bottom.reshape(len(top), -1)])

    def ratios(drawn: np.ndarray) -> np.ndarray:
        numerator, denominator = drawn @ columns
        return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)

    return bootstrap_statistic(ratios, [len(top)], top.shape[1:], level, n_resamples, seed)


def bootstrap_difference(
    a: Num[np.ndarray, "observation *axes"] | Sequence[Any],
    b: Num[np.ndarray, "other_observation *axes"] | Sequence[Any],
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the mean of `a` minus the mean of `b`: independent groups, each resampled separately.

    For pairs, use `bootstrap_interval(a - b)`.

    Raises:
        ValueError: If a group is empty, the groups' trailing axes differ, or there is a NaN.

    >>> interval = bootstrap_difference([3.0, 4.0, 5.0], [1.0, 1.0])
    >>> float(interval.low), float(interval.estimate), float(interval.high)
    (2.0, 3.0, 4.0)
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if 0 in (a.ndim, b.ndim, len(a), len(b)) or a.shape[1:] != b.shape[1:]:
        raise ValueError(f"expected two groups with the same trailing axes, got shapes {a.shape} and {b.shape}")
    refuse_nan(a, "a")
    refuse_nan(b, "b")
    n_a, n_b = len(a), len(b)
    columns_a, columns_b = a.reshape(n_a, -1), b.reshape(n_b, -1)

    def differences(drawn_a: np.ndarray, drawn_b: np.ndarray) -> np.ndarray:
        return drawn_a @ columns_a / n_a - drawn_b @ columns_b / n_b

    return bootstrap_statistic(differences, [n_a, n_b], a.shape[1:], level, n_resamples, seed)


def bootstrap_of_sums(
    sums: Num[np.ndarray, "observation *axes"] | Sequence[Any],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of a function of sums over observations, such as the mean IoU of pixels counted per class.

    Args:
        sums: What each observation adds to the sums.
        statistic: From the sums of resamples [resample *axes] to one number each [resample].
        level: The level of the interval, between 0 and 1.
        n_resamples: How many resamples.
        seed: Seed of the resamples.

    Raises:
        ValueError: If there is no observation, or a NaN.

    >>> counts = [[1, 4], [3, 4], [0, 1]]
    >>> interval = bootstrap_of_sums(counts, lambda sums: sums[:, 0] / sums[:, 1])
    >>> ratio = bootstrap_ratio([1, 3, 0], [4, 4, 1])
    >>> float(interval.estimate) == float(ratio.estimate), float(interval.low) == float(ratio.low)
    (True, True)
    """
    values = np.asarray(sums, dtype=np.float64)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"expected at least one observation, got shape {values.shape}")
    refuse_nan(values, "sums")
    columns = values.reshape(len(values), -1)

    def of_resamples(drawn: np.ndarray) -> np.ndarray:
        return statistic((drawn @ columns).reshape(len(drawn), *values.shape[1:]))[:, None]

    return bootstrap_statistic(of_resamples, [len(values)], (), level, n_resamples, seed)


def bootstrap_statistic(
    statistic: Callable[..., np.ndarray],
    sizes: Sequence[int],
    axes: tuple[int, ...],
    level: float,
    n_resamples: int,
    seed: int,
) -> Interval:
    """Percentile bootstrap (`scipy.stats.bootstrap`) of groups of these sizes.

    `statistic` takes how often each observation was drawn, [resample observation] for each group, and returns
    [resample column]. Resamples in which it is NaN are left out. The interval is NaN where a group has one observation.
    """

    def statistic_of_indices(*indices: np.ndarray, axis: int = -1) -> np.ndarray:
        """[column resample], the layout that scipy expects, from observations' indices [resample observation]."""
        counts = (times_drawn(np.atleast_2d(index), size) for index, size in zip(indices, sizes, strict=True))
        columns = statistic(*counts).T
        return columns if indices[0].ndim > 1 else columns[:, 0]

    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, such as 0.95, got {level}")
    observations = tuple(np.arange(size) for size in sizes)
    estimate = statistic_of_indices(*observations).reshape(axes)
    if min(sizes) == 1:
        unknown = np.full_like(estimate, np.nan)
        return Interval(estimate, unknown, unknown, level)
    with warnings.catch_warnings():
        # it warns of NaN, which is its result where any resample is NaN
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            observations,
            statistic_of_indices,
            vectorized=True,
            n_resamples=n_resamples,
            batch=resampling_batch(sum(sizes)),
            confidence_level=level,
            method="percentile",
            random_state=np.random.default_rng(seed),  # pyright: ignore[reportCallIssue]  (`rng` from scipy 1.15)
        )
    ends = [np.array(end).reshape(-1) for end in result.confidence_interval]
    columns = np.asarray(result.bootstrap_distribution).reshape(len(ends[0]), -1)
    for index in np.flatnonzero(np.isnan(columns).any(axis=1)):
        known = columns[index][~np.isnan(columns[index])]
        for end, share in zip(ends, ((1 - level) / 2, (1 + level) / 2), strict=True):
            end[index] = np.quantile(known, share) if len(known) else np.nan
    low, high = (end.reshape(axes) for end in ends)
    return Interval(estimate, low, high, level)


def times_drawn(index: Int[np.ndarray, "resample draw"], n: int) -> Float[np.ndarray, "resample observation"]:
    """How often each of `n` observations was drawn, so that sums over resamples are a matrix product."""
    cells = index + n * np.arange(len(index))[:, None]
    return np.bincount(cells.ravel(), minlength=len(index) * n).reshape(len(index), n).astype(np.float64)


def resampling_batch(n_numbers: int) -> int:
    """How many resamples of `n_numbers` each scipy may hold at a time."""
    return max(1, _RESAMPLED_NUMBERS // max(1, n_numbers))
