"""Rendered scenes compared with a renderer of one pixel at a time, and with other sizes and machines."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import analyses.data.emoji_scenes
from analyses.data.emoji_scenes.classes import ARTISTS
from analyses.data.emoji_scenes.rendering import render
from analyses.data.emoji_scenes.scenes import EmojiScenes

FOLDER = Path(analyses.data.emoji_scenes.__file__).parent / "sprites"


def slow_object(layout, row: int, slot: int, size: int) -> np.ndarray:
    """Premultiplied colour and alpha, 0 to 255, [height width 4]: bilinear samples of the atlas, pixel by pixel."""
    atlas = Image.open(FOLDER / f"{ARTISTS[layout.artists[row, slot]]}.png").convert("RGBA")
    top, left = divmod(int(layout.labels[row, slot]), 10)
    sprite = np.asarray(atlas.crop((64 * left, 64 * top, 64 * left + 64, 64 * top + 64))).astype(float)
    sprite[:, :, :3] *= sprite[:, :, 3:] / 255
    angle = 2 * math.atan(layout.tilts[row, slot])
    drawn = np.zeros((size, size, 4))
    for y in range(size):
        for x in range(size):
            right = ((x + 0.5) / size - layout.centres[row, slot, 0]) / layout.scales[row, slot]
            down = ((y + 0.5) / size - layout.centres[row, slot, 1]) / layout.scales[row, slot]
            across = math.cos(angle) * right + math.sin(angle) * down
            u = 64 * (0.5 + (-across if layout.mirrored[row, slot] else across)) - 0.5
            v = 64 * (0.5 - math.sin(angle) * right + math.cos(angle) * down) - 0.5
            for i in (math.floor(v), math.floor(v) + 1):
                for j in (math.floor(u), math.floor(u) + 1):
                    if 0 <= i < 64 and 0 <= j < 64:
                        drawn[y, x] += (1 - abs(v - i)) * (1 - abs(u - j)) * sprite[i, j]
    return drawn


def test_objects_are_the_atlas_rotated_scaled_and_placed() -> None:
    # large enough to be drawn from the 64-pixel sprites, so that only the sixteenths of a texel differ
    layout = EmojiScenes(100, seed=4, scale=(0.6, 0.95)).layout(range(4))
    rendered = render(layout, 64)
    for row in range(4):
        slow = slow_object(layout, row, 0, 64)
        assert np.abs(rendered.alphas[row, 0] - slow[:, :, 3]).max() <= 10
        inside = slow[:, :, 3] > 250
        colour = np.minimum(slow[:, :, :3] * layout.gains[row, 0], slow[:, :, 3:])
        difference = rendered.pixels[row].transpose(1, 2, 0) - colour
        assert abs(difference[inside].mean()) < 1
        assert np.abs(difference[inside]).mean() < 9  # the pixel noise: 0.03 of 255


def test_masks_show_where_the_object_changes_the_picture() -> None:
    """Over black and over white, the same scene tells its alpha: what the background does not shine through."""
    scenes = EmojiScenes(100, seed=4, objects="mixed")
    layout = scenes.layout(range(12))
    pictures = [
        render(replace(layout, background_colours=np.full((12, 3), value)), 64).pixels.astype(float)
        for value in (-9.0, 9.0)
    ]
    seen_through = (pictures[1] - pictures[0]).mean(axis=1) / 255
    rendered = render(layout, 64)
    batch = scenes.batch(range(12))
    alpha = rendered.alphas.astype(float).sum(axis=1) / 255
    unclipped = (pictures[0].min(axis=1) > 0) & (pictures[1].max(axis=1) < 255)
    assert unclipped.mean() > 0.1
    assert np.abs(1 - seen_through - alpha)[unclipped].max() < 0.02
    assert (batch.masks.numpy() == (rendered.alphas >= 128)).all()
    assert batch.masks.sum(dim=1).max() == 1


def test_the_second_object_covers_the_first() -> None:
    layout = EmojiScenes(100, seed=4, objects=2).layout([0, 1])
    layout = replace(layout, centres=np.full_like(layout.centres, 0.5))
    alone = render(replace(layout, labels=np.array([[-1], [-1]]).repeat(2, 1) * [1, 0] + layout.labels * [0, 1]), 64)
    both = render(layout, 64)
    assert (both.alphas[:, 1] == alone.alphas[:, 1]).all()
    assert (both.alphas[:, 0][both.alphas[:, 1] == 255] == 0).all()
    assert both.alphas.astype(int).sum(axis=1).max() <= 256


@pytest.mark.parametrize("image_size", [8, 40, 96])
def test_other_sizes_show_the_same_scene(image_size: int) -> None:
    scenes = [EmojiScenes(20, seed=2, image_size=size) for size in (64, image_size)]
    pixels = [one.batch(range(20)).pixels.float() for one in scenes]
    small, large = (torch.nn.functional.interpolate(one, size=(8, 8), mode="area") for one in pixels)
    assert pixels[1].shape == (20, 3, image_size, image_size)
    assert (small - large).abs().mean() < 12


def test_the_bytes_are_the_same_on_every_machine() -> None:
    rendered = render(
        EmojiScenes(10_000, seed=11, objects="mixed", background_strength=0.5).layout(range(0, 9000, 97)), 64
    )
    digest = hashlib.sha256(rendered.pixels.tobytes() + rendered.alphas.tobytes()).hexdigest()
    assert digest == "600e74d1e13574d7dc9f53950e867be10da5f41a27561f33f48d026654ed221a"
