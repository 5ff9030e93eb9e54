"""The sprite table compared with the atlases from which it is built."""

from pathlib import Path

import numpy as np
from PIL import Image

import analyses.data.emoji_scenes
from analyses.data.emoji_scenes.classes import ARTISTS
from analyses.data.emoji_scenes.sprite_table import sprite_table

FOLDER = Path(analyses.data.emoji_scenes.__file__).parent / "sprites"


def sprite(artist: int, label: int, level: int) -> np.ndarray:
    """Lanes of one sprite with its border, [4 height width]."""
    table = sprite_table()
    one = [np.array([value]) for value in (artist, label, level)]
    start, stride = int(table.find(*one)[0]), int(table.strides(one[2])[0])
    texels = table.texels[start : start + stride**2].reshape(stride, stride)
    return np.stack([(texels >> np.uint64(16 * lane)) & np.uint64(0xFFFF) for lane in range(4)]).astype(int)


def test_the_largest_sprites_are_those_of_the_atlas() -> None:
    for artist, label in ((0, 0), (1, 37), (2, 99)):
        atlas = np.asarray(Image.open(FOLDER / f"{ARTISTS[artist]}.png").convert("RGBA")).astype(float)
        row, column = divmod(label, 10)
        expected = atlas[64 * row : 64 * (row + 1), 64 * column : 64 * (column + 1)]
        rgba = sprite(artist, label, level=0)[:, 1:-2, 1:-2].transpose(1, 2, 0)
        assert (rgba[:, :, 3] == expected[:, :, 3]).all()
        assert np.abs(rgba[:, :, :3] - expected[:, :, :3] * expected[:, :, 3:] / 255).max() <= 0.5


def test_every_size_is_the_same_picture_within_a_transparent_border() -> None:
    table = sprite_table()
    whole = sprite(1, 37, level=0)[:, 1:-2, 1:-2]
    for level, size in enumerate(table.sizes):
        lanes = sprite(1, 37, level)
        assert lanes.shape == (4, size + 3, size + 3)
        inner = lanes[:, 1:-2, 1:-2]
        assert lanes.sum() == inner.sum()
        assert (inner[:3] <= inner[3]).all()
        assert inner.max() <= 255
        assert np.abs(inner.mean(axis=(1, 2)) - whole.mean(axis=(1, 2))).max() < 5


def test_the_size_to_draw_from() -> None:
    table = sprite_table()
    for width, size in ((200, 64), (60, 64), (38, 64), (37, 45), (26, 32), (5, 8), (1, 8)):
        assert table.sizes[table.levels_for(np.array([float(width)]))[0]] == size
