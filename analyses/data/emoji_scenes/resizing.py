"""Cubic resampling as a matrix of integers, so that a matrix product with it is exact on every machine."""

import numpy as np
from jaxtyping import Float64

__all__ = ["resampling_matrix"]


def resampling_matrix(n_out: int, n_in: int, unit: int) -> Float64[np.ndarray, "n_out n_in"]:
    """Keys' cubic interpolation (a = -0.5) from `n_in` to `n_out` samples; each row sums to `unit`.

    Samples are at pixel centres. When shrinking, the kernel widens with the step, to avoid aliasing. The weights are
    whole numbers: a product with whole numbers small enough for its dtype needs no rounding, so neither the order of
    summation nor a fused multiply-add changes its bits.

    >>> resampling_matrix(4, 2, unit=64)
    array([[70., -6.],
           [51., 13.],
           [13., 51.],
           [-6., 70.]])
    """
    centres = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    distance = np.abs(np.arange(n_in) - centres[:, None]) / max(1.0, n_in / n_out)
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    weights = np.rint(weights / weights.sum(axis=1, keepdims=True) * unit)
    largest = weights.argmax(axis=1)
    weights[np.arange(n_out), largest] += unit - weights.sum(axis=1)
    return weights
