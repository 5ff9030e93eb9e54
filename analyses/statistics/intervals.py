"""How large a difference is and how sure one is of it: effect sizes and bootstrap intervals."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num
from scipy import stats

__all__ = [
    "Interval",
    "Observations",
    "bootstrap_difference",
    "bootstrap_interval",
    "bootstrap_ratio",
    "checked_observations",
    "checked_pairs",
    "cliffs_delta",
    "cohens_d",
    "rank_biserial",
    "resampling_batch",
    "times_drawn",
]  # fmt: skip

Observations = Num[np.ndarray, "_"] | Sequence[float | int]

# Numbers that scipy's resampling may hold at a time.
_RESAMPLED_NUMBERS = 2**22


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap confidence interval, for each of the trailing axes of the observations."""

    estimate: Float[np.ndarray, "*axes"]
    low: Float[np.ndarray, "*axes"]
    high: Float[np.ndarray, "*axes"]
    level: float


def bootstrap_interval(
    observations: Num[np.ndarray, "observation *axes"] | Sequence[Any],
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a mean (`scipy.stats.bootstrap`), for each of the trailing axes.

    All of them are resampled together, so blocks keep their dependence. Of one observation the interval is NaN.

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

    Where no observation has a denominator, the estimate and its interval are NaN.

    Raises:
        ValueError: If there is no observation, shapes differ, or there is a NaN.

    >>> float(bootstrap_ratio([1, 0, 3], [2, 1, 5]).estimate)
    0.5
    """
    top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if top.shape != bottom.shape or top.ndim == 0 or len(top) == 0:
        raise ValueError(f"expected observations of one shape, at least one, got shapes {top.shape} and {bottom.shape}")
    _refuse_nan(top, "numerators")
    _refuse_nan(bottom, "denominators")

    columns = np.stack([top.reshape(len(top), -1), bottom.reshape(len(top), -1)])

    def ratios(drawn: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.divide(*(drawn @ columns))

    return _bootstrap(ratios, [len(top)], top.shape[1:], level, n_resamples, seed)


def bootstrap_difference(
    a: Num[np.ndarray, "observation *axes"] | Sequence[Any],
    b: Num[np.ndarray, "other_observation *axes"] | Sequence[Any],
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of the mean of `a` minus the mean of `b`, of independent groups, each resampled for itself.

    Of pairs, take `bootstrap_interval(a - b)`.

    Raises:
        ValueError: If a group is empty, the groups' trailing axes differ, or there is a NaN.

    >>> interval = bootstrap_difference([3.0, 4.0, 5.0], [1.0, 1.0])
    >>> float(interval.low), float(interval.estimate), float(interval.high)
    (2.0, 3.0, 4.0)
    """
    of_a, of_b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if 0 in (of_a.ndim, of_b.ndim, len(of_a), len(of_b)) or of_a.shape[1:] != of_b.shape[1:]:
        raise ValueError(f"expected two groups with the same trailing axes, got shapes {of_a.shape} and {of_b.shape}")
    _refuse_nan(of_a, "a")
    _refuse_nan(of_b, "b")
    columns_a, columns_b = of_a.reshape(len(of_a), -1), of_b.reshape(len(of_b), -1)

    def differences(drawn_a: np.ndarray, drawn_b: np.ndarray) -> np.ndarray:
        return drawn_a @ columns_a / len(of_a) - drawn_b @ columns_b / len(of_b)

    return _bootstrap(differences, [len(of_a), len(of_b)], of_a.shape[1:], level, n_resamples, seed)


def _bootstrap(
    statistic: Callable[..., np.ndarray],
    sizes: Sequence[int],
    axes: tuple[int, ...],
    level: float,
    n_resamples: int,
    seed: int,
) -> Interval:
    """Percentile bootstrap (`scipy.stats.bootstrap`) of groups of these sizes.

    `statistic` takes how often each observation was drawn, [resample observation] for each group, and gives
    [resample column]. The interval is NaN where a group has one observation.
    """

    def of_drawn(*index: np.ndarray, axis: int = -1) -> np.ndarray:
        """[column resample], as scipy asks for it, of observations' indices [resample observation]."""
        drawn = (times_drawn(np.atleast_2d(one), size) for one, size in zip(index, sizes, strict=True))
        of_columns = statistic(*drawn).T
        return of_columns if index[0].ndim > 1 else of_columns[:, 0]

    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, such as 0.95, got {level}")
    observations = tuple(np.arange(size) for size in sizes)
    estimate = of_drawn(*observations).reshape(axes)
    if min(sizes) == 1:
        nothing = np.full_like(estimate, np.nan)
        return Interval(estimate, nothing, nothing, level)
    with warnings.catch_warnings():
        # it warns of a NaN, which is what there is to say where nothing has a denominator
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            observations,
            of_drawn,
            vectorized=True,
            n_resamples=n_resamples,
            batch=resampling_batch(sum(sizes)),
            confidence_level=level,
            method="percentile",
            random_state=np.random.default_rng(seed),  # pyright: ignore[reportCallIssue]  (`rng` from scipy 1.15)
        )
    low, high = (np.asarray(end).reshape(axes) for end in result.confidence_interval)
    return Interval(estimate, low, high, level)


def rank_biserial(x: Observations, y: Observations | float = 0.0) -> float:
    """Matched-pairs rank-biserial correlation `(W+ - W-) / (W+ + W-)`: -1 to 1, 0 if there is no difference.

    >>> rank_biserial([1.0, 2.0, 3.0], [0.0, 0.0, 6.0])
    0.0
    """
    x, y = checked_pairs(x, y)
    differences = (x - y)[x != y]
    if not len(differences):
        return 0.0
    signed = np.sign(differences) * stats.rankdata(np.abs(differences))
    return float(signed.sum() / np.abs(signed).sum())


def cliffs_delta(a: Observations, b: Observations) -> float:
    """Share of pairs (one of each group) in which `a` is greater, minus the share in which it is smaller: -1 to 1.

    >>> cliffs_delta([3, 4, 5], [1, 2, 4])
    0.6666666666666667
    """
    a, b = checked_observations(a, "a"), checked_observations(b, "b")
    u = stats.mannwhitneyu(a, b, method="asymptotic").statistic
    return float(2 * u / (len(a) * len(b)) - 1)


def cohens_d(a: Observations, b: Observations, *, paired: bool = False) -> float:
    """Difference of means in standard deviations: of the differences if `paired`, else pooled over the groups.

    0 where the means are equal; infinite where they differ and nothing varies.

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
    if difference == 0:
        return 0.0
    return float(difference / spread) if spread > 0 else float(np.copysign(np.inf, difference))


def times_drawn(index: Int[np.ndarray, "resample draw"], n: int) -> Float[np.ndarray, "resample observation"]:
    """How often each of `n` observations was drawn: sums over resamples are then a product of matrices."""
    places = index + n * np.arange(len(index))[:, None]
    return np.bincount(places.ravel(), minlength=len(index) * n).reshape(len(index), n).astype(np.float64)


def resampling_batch(n_numbers: int) -> int:
    """How many resamples of so many numbers scipy may hold at a time."""
    return max(1, _RESAMPLED_NUMBERS // max(1, n_numbers))


def checked_observations(values: Observations, name: str) -> Float[np.ndarray, "observation"]:
    """Observations as an array, two at least and no NaN among them; the error names them."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"expected at least two observations in {name}, one number each, got shape {values.shape}")
    _refuse_nan(values, name)
    return values


def checked_pairs(
    x: Observations, y: Observations | float
) -> tuple[Float[np.ndarray, "observation"], Float[np.ndarray, "observation"]]:
    """Pairs of observations; a number in the place of `y` is the partner of each."""
    x = checked_observations(x, "x")
    y = np.full_like(x, y) if isinstance(y, float | int) else checked_observations(y, "y")
    if x.shape != y.shape:
        raise ValueError(f"paired observations come in equal numbers, got {len(x)} and {len(y)}")
    return x, y


def _refuse_nan(values: np.ndarray, name: str) -> None:
    n_nan = int(np.isnan(values).sum())
    if n_nan:
        raise ValueError(f"{n_nan} of {values.size} numbers in {name} are NaN: leave those observations out first")
