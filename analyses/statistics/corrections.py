"""P-values corrected for the number of tests."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import stats

__all__ = ["adjust_p_values"]

Correction = Literal["holm", "fdr_bh", "fdr_by", "bonferroni"]


def adjust_p_values(
    p_values: Float[np.ndarray, "test"] | Sequence[float | int], method: Correction = "holm"
) -> Float[np.ndarray, "test"]:
    """P-values corrected for the number of tests, such as one per block; NaNs do not count as tests and stay NaN.

    Args:
        p_values: One per test.
        method: `"holm"` and `"bonferroni"` bound the chance of any false discovery; `"fdr_bh"` (independent or
            positively dependent tests) and `"fdr_by"` (any) bound the expected share of false discoveries.

    Raises:
        ValueError: If a p-value is outside 0 to 1, or the method is unknown.

    >>> adjust_p_values([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    adjusted, is_test = p_values.copy(), ~np.isnan(p_values)
    tests = p_values[is_test]
    if np.any((tests < 0) | (tests > 1)):
        raise ValueError(f"p-values lie between 0 and 1, got {tests.min()} to {tests.max()}")
    if method not in ("holm", "bonferroni", "fdr_bh", "fdr_by"):
        raise ValueError(f"expected method 'holm', 'bonferroni', 'fdr_bh' or 'fdr_by', got {method!r}")
    if not len(tests):
        return adjusted
    if method == "holm":
        order = np.argsort(tests, kind="stable")
        stepwise = np.maximum.accumulate(tests[order] * np.arange(len(tests), 0, -1))
        corrected = np.empty_like(tests)
        corrected[order] = stepwise
    elif method == "bonferroni":
        corrected = tests * len(tests)
    else:
        corrected = stats.false_discovery_control(tests, method=method.removeprefix("fdr_"))
    adjusted[is_test] = np.minimum(corrected, 1.0)
    return adjusted
