"""Corrections for several tests compared with their definitions."""

import numpy as np
import pytest

from analyses.statistics.corrections import adjust_p_values


def test_holm_steps_down():
    p_values = [0.01, 0.04, 0.03, 0.5, 0.011]
    expected, worst = [0.0] * 5, 0.0
    for step, test in enumerate(sorted(range(5), key=lambda i: p_values[i])):
        worst = max(worst, (5 - step) * p_values[test])
        expected[test] = min(1.0, worst)
    assert adjust_p_values(p_values).tolist() == pytest.approx(expected)


def test_false_discovery_rate():
    # Benjamini and Hochberg: the smallest p n / rank over this and all larger p-values
    p_values = np.array([0.01, 0.04, 0.03, 0.5, 0.011])
    ranks = p_values.argsort().argsort() + 1
    expected = [min(p_values[j] * 5 / ranks[j] for j in range(5) if p_values[j] >= p) for p in p_values]
    assert adjust_p_values(p_values, "fdr_bh").tolist() == pytest.approx(expected)
    assert adjust_p_values(p_values, "bonferroni").tolist() == pytest.approx(np.minimum(1, 5 * p_values).tolist())
    assert np.all(adjust_p_values(p_values, "fdr_by") >= adjust_p_values(p_values, "fdr_bh"))


def test_nan_does_not_count_as_a_test():
    adjusted = adjust_p_values([0.01, np.nan, 0.04])
    assert adjusted[[0, 2]].tolist() == [0.02, 0.04]
    assert np.isnan(adjusted[1])
    assert np.isnan(adjust_p_values([np.nan, np.nan], "fdr_bh")).all()
    assert len(adjust_p_values([])) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adjust_p_values([0.1, 1.2]), "between 0 and 1, got 0.1 to 1.2"),
        (lambda: adjust_p_values([0.1], "sidak"), "'fdr_bh' or 'fdr_by', got 'sidak'"),
    ],
)
def test_errors_say_what_is_wrong(call, message, bad_input):
    with pytest.raises(ValueError, match=message):
        call()
