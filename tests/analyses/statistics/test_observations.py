"""Observations are numbers, two at least, and pairs match."""

import numpy as np
import pytest

from analyses.statistics.observations import checked_observations, checked_pairs, refuse_nan


def test_a_single_number_is_the_partner_of_every_observation():
    x, y = checked_pairs([1.0, 2.0, 3.0], 0.5)
    assert (x.tolist(), y.tolist()) == ([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])


def test_observations_become_an_array_of_float64():
    checked = checked_observations([1, 2], "a")
    assert checked.dtype == np.float64
    refuse_nan(checked, "a")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: checked_observations([1.0], "a"),
            "at least two observations in a, one number each, got shape \\(1,\\)",
        ),
        (lambda: checked_observations([[1.0, 2.0]], "a"), "one number each"),
        (lambda: checked_observations([1.0, np.nan], "b"), "1 of 2 numbers in b are NaN: leave those observations"),
        (lambda: checked_pairs([1.0, 2.0], [0.0, 0.0, 1.0]), "equal numbers, got 2 and 3"),
    ],
)
def test_errors_say_what_is_wrong(call, message, bad_input):
    with pytest.raises(ValueError, match=message):
        call()
