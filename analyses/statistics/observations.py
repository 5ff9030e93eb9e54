"""Observations for tests and effect sizes: one number each, at least two, none of them NaN."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

__all__ = ["Observations", "checked_observations", "checked_pairs", "refuse_nan"]

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
