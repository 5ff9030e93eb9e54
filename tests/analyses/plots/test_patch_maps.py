"""Patch maps lie on the grid, in pixels, for any shape of picture and patch."""

import numpy as np
import pytest
import torch
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analyses.plots.patch_maps import draw_outline, draw_patch_map, draw_picture, picture_of
from hooked_vit import HookedViT


def test_the_picture_is_what_was_preprocessed() -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    shown = picture_of(model.preprocess(picture)[0], model.data_config)
    np.testing.assert_allclose(shown * 255, picture, atol=1e-3)


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


def test_nothing_is_outlined_where_there_is_no_object() -> None:
    ax = Figure().subplots()
    draw_outline(ax, torch.zeros(4, 6, dtype=torch.bool), (40, 60))
    assert not ax.collections
