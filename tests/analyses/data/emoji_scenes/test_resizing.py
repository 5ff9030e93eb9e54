"""Cubic resampling compared with the kernel written out for one sample at a time."""

import numpy as np
import pytest
from PIL import Image

from analyses.data.emoji_scenes.resizing import resampling_matrix


def keys_kernel(distance: float) -> float:
    if distance < 1:
        return 1.5 * distance**3 - 2.5 * distance**2 + 1
    if distance < 2:
        return -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return 0.0


@pytest.mark.parametrize(("n_out", "n_in"), [(64, 2), (40, 8), (24, 64), (11, 64), (8, 8)])
def test_weights_are_the_kernel_at_pixel_centres(n_out: int, n_in: int) -> None:
    unit = 1024
    step = n_in / n_out
    for row, weights in enumerate(resampling_matrix(n_out, n_in, unit)):
        centre = (row + 0.5) * step - 0.5
        slow = np.array([keys_kernel(abs(column - centre) / max(1, step)) for column in range(n_in)])
        slow *= unit / slow.sum()
        assert weights.sum() == unit
        assert (weights == np.rint(weights)).all()
        # the largest weight takes what the rounding of the others leaves
        assert np.abs(weights - slow).max() <= 0.5 + 0.5 * (slow != 0).sum()


@pytest.mark.parametrize(("n_out", "n_in"), [(23, 64), (64, 16)])
def test_weights_are_those_of_pillows_bicubic_filter(n_out: int, n_in: int) -> None:
    picture = np.random.default_rng(0).uniform(0, 255, (n_in, n_in)).astype(np.float32)
    matrix = resampling_matrix(n_out, n_in, 4096) / 4096
    pillow = np.asarray(Image.fromarray(picture).resize((n_out, n_out), Image.Resampling.BICUBIC))
    assert np.abs(matrix @ picture @ matrix.T - pillow).max() < 0.5
