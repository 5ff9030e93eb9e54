"""Patch maps lie on the grid, in pixels, for any shape of picture and patch."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analyses.plots.patch_maps import (
    FINEST_LINED_GRID,
    ColourRange,
    colour_range,
    draw_outline,
    draw_patch_map,
    draw_picture,
)


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_and_pictures_share_their_pixels(channels: int) -> None:
    left, right = Figure().subplots(1, 2)
    draw_picture(left, np.zeros((32, 24, channels)), grid=(4, 3), patch_size=(8, 8))
    mesh = draw_patch_map(right, np.arange(12).reshape(4, 3), (8, 8), "viridis", Normalize(0, 11))
    assert left.get_xlim() == right.get_xlim() == (0, 24)
    assert left.get_ylim() == right.get_ylim() == (32, 0)
    assert mesh.get_array().tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_patches_need_not_be_square() -> None:
    ax = Figure().subplots()
    draw_patch_map(ax, np.zeros((2, 5)), (4, 10), "viridis", Normalize(0, 1))
    assert ax.get_xlim() == (0, 50)
    assert ax.get_ylim() == (8, 0)


def test_an_outline_is_closed_at_the_edge_and_scales_to_the_picture() -> None:
    ax = Figure().subplots()
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[2:, 3:] = True
    draw_outline(ax, mask, (40, 60))
    (path,) = ax.collections[-1].get_paths()
    assert np.allclose(path.vertices[0], path.vertices[-1])
    assert path.vertices.max(axis=0).tolist() == [60, 40]
    assert path.vertices.min(axis=0).tolist() == [30, 20]


def test_without_an_object_there_is_no_outline() -> None:
    ax = Figure().subplots()
    draw_outline(ax, torch.zeros(4, 6, dtype=torch.bool), (40, 60))
    assert not ax.collections


@pytest.mark.parametrize("n", [FINEST_LINED_GRID, 37])
def test_lines_do_not_wash_out_fine_grids(n: int) -> None:
    """Colours of a fine grid are those of its values, on average; a coarse grid has lines."""
    figure = Figure(figsize=(1.4, 1.4), dpi=200)
    canvas = FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    draw_patch_map(ax, np.zeros((n, n)), (1, 1), "gray", Normalize(0, 1))
    picture = Figure().subplots()
    draw_picture(picture, np.zeros((n, n, 3)), (n, n), (1, 1))
    canvas.draw()
    lightness = np.asarray(canvas.buffer_rgba())[..., :3].mean() / 255
    if n > FINEST_LINED_GRID:
        assert lightness < 0.01
        assert not picture.collections
    else:
        assert 0.01 < lightness < 0.3
        assert len(picture.collections) == 2


def test_pictures_of_one_channel_share_their_scale() -> None:
    ax = Figure().subplots()
    draw_picture(ax, np.full((4, 4, 1), 0.25), (2, 2), (2, 2))
    assert ax.images[0].get_clim() == (0, 1)
    draw_picture(ax, np.full((4, 4, 1), 64, dtype=np.uint8), (2, 2), (2, 2))
    assert ax.images[1].get_clim() == (0, 255)


class TestColourRange:
    def test_usual_values_are_not_clipped(self) -> None:
        values = np.random.default_rng(0).normal(size=(14, 14))
        ends = colour_range(values)
        assert (ends.low, ends.high, ends.note) == (values.min(), values.max(), "")

    def test_a_few_extreme_values_are_clipped(self) -> None:
        values = np.linspace(0, 1, 64)
        assert colour_range(np.append(values, -50)).note == "clipped at the 2nd percentile"
        ends = colour_range(np.concatenate([values, [-50, 50]]))
        assert ends.note == "clipped at 2nd, 98th percentile"
        assert 0 <= ends.low < 0.05 < 0.95 < ends.high <= 1

    def test_equal_and_missing_values(self) -> None:
        assert colour_range(np.array([2.0, 2.0, np.nan])) == ColourRange(2.0, 3.0)
        assert colour_range(np.array([np.nan])) == ColourRange(0.0, 1.0)
        one = np.zeros(64)
        one[3] = 5
        assert colour_range(one) == ColourRange(0.0, 5.0)
