"""Areas against their rules written out; their intervals against the bootstrap written out."""

import numpy as np
import pytest

from analyses.faithfulness.areas import auc_interval, removal_auc


def test_areas_match_their_rules() -> None:
    accuracy, n_removed = np.array([0.9, 1.0, 0.5, 0.25, 0.05]), [0, 1, 2, 3, 4]
    # the released code: 1 to N - 1 kept tokens, divided by the largest of those and by N
    assert removal_auc(accuracy, n_removed, 4) == pytest.approx((1.0 + 0.5 + 0.25) / (1.0 * 4))
    trapezoid = sum((accuracy[i] + accuracy[i + 1]) / 2 for i in range(4)) / 4
    assert removal_auc(accuracy, n_removed, 4, "trapezoid") == pytest.approx(trapezoid)
    # a step left out lies on the line between its neighbours
    some = removal_auc(accuracy[[0, 1, 3, 4]], [0, 1, 3, 4], 4)
    assert some == pytest.approx((1.0 + 0.625 + 0.25) / 4)
    # if the head reads patches, one stays
    assert removal_auc(accuracy[:4], n_removed[:4], 4) == pytest.approx(1.75 / 4)
    many = removal_auc(np.stack([accuracy, accuracy / 2, 0 * accuracy]), n_removed, 4)
    assert many[:2] == pytest.approx([1.75 / 4, 1.75 / 4])
    assert np.isnan(many[2])


def test_interval_matches_the_bootstrap_written_out() -> None:
    rng = np.random.default_rng(1)
    correct = rng.random((9, 2, 5)) < 0.6
    interval = auc_interval(correct, range(5), 4, "trapezoid", n_resamples=50, seed=3)
    drawn = np.random.default_rng(3).integers(0, 9, size=(50, 9))
    resampled = [removal_auc(correct[images].mean(0), range(5), 4, "trapezoid") for images in drawn]
    np.testing.assert_allclose(interval.low, np.quantile(resampled, 0.025, axis=0))
    np.testing.assert_allclose(interval.high, np.quantile(resampled, 0.975, axis=0))
    np.testing.assert_allclose(interval.estimate, removal_auc(correct.mean(0), range(5), 4, "trapezoid"))
    assert np.isnan(auc_interval(correct[:1], range(5), 4, "trapezoid").low).all()


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    with pytest.raises(ValueError, match="'published' or 'trapezoid', got 'simpson'"):
        removal_auc(np.zeros(3), range(3), 2, "simpson")
