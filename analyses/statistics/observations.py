"""Observations for tests and effect sizes: one number each, at least two, none of them NaN."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

__all__ = [
    "Observations",
    "checked_observations",
    "checked_pairs",
    "differences_of_pairs",
    "refuse_nan",
    "rounding_steps",
    "rounding_unit",
]

Observations = Num[np.ndarray, "_"] | Sequence[float | int]


def checked_observations(values: Observations, name: str) -> Float[np.ndarray, "observation"]:
    """Observations as an array of at least two numbers without NaNs; errors call them `name`."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"expected at least two observations in {name}, one number each, got shape {values.shape}")
    refuse_nan(values, name)
    return values


def checked_pairs(
    x: Observations, y: Observations | float
) -> tuple[Float[np.ndarray, "observation"], Float[np.ndarray, "observation"]]:
    """Pairs of observations; if `y` is a single number, it is the partner of each."""
    x = checked_observations(x, "x")
    y = np.full_like(x, y) if isinstance(y, float | int) else checked_observations(y, "y")
    if x.shape != y.shape:
        raise ValueError(f"paired observations come in equal numbers, got {len(x)} and {len(y)}")
    return x, y


def refuse_nan(values: np.ndarray, name: str) -> None:
    """Raise ValueError if there are NaNs; the error calls the values `name`."""
    n_nan = int(np.isnan(values).sum())
    if n_nan:
        raise ValueError(f"{n_nan} of {values.size} numbers in {name} are NaN: leave those observations out first")


def rounding_unit(values: Num[np.ndarray, "observation *tests"]) -> Float[np.ndarray, "*tests"]:
    """The size of differences that rounding explains: 1e-12 of the largest magnitude, for each of the trailing axes.

    >>> float(rounding_unit(np.array([1.0, -8.0])))
    8e-12
    """
    magnitudes = np.abs(values.astype(np.float64))
    largest = np.where(np.isfinite(magnitudes), magnitudes, 0).max(axis=0)
    return np.asarray(np.maximum(1e-12 * largest, np.finfo(np.float64).tiny))


def rounding_steps(
    values: Float[np.ndarray, "observation *tests"], unit: Float[np.ndarray, "*tests"]
) -> Float[np.ndarray, "observation *tests"]:
    """The values as whole multiples of `unit`: equal where they differ by rounding only, and in the same order.

    >>> rounding_steps(np.array([0.1 + 0.2, 0.3]), rounding_unit(np.array([0.3]))).tolist()
    [1000000000000.0, 1000000000000.0]
    """
    return np.asarray(np.round(values / unit))


def differences_of_pairs(
    x: Float[np.ndarray, "observation"], y: Float[np.ndarray, "observation"]
) -> Float[np.ndarray, "observation"]:
    """`x - y`, exactly 0 where the two differ by rounding only.

    >>> differences_of_pairs(np.array([0.1 + 0.2, 1.0]), np.array([0.3, 0.5])).tolist()
    [0.0, 0.5]
    """
    differences = x - y
    differences[rounding_steps(differences, rounding_unit(np.concatenate([x, y]))) == 0] = 0.0
    return differences
