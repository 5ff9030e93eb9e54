"""The content of scenes: balanced classes, the recipe's ranges, backgrounds in the colours of a group."""

import numpy as np
import pytest

from analyses.data.emoji_scenes.classes import group_of_class
from analyses.data.emoji_scenes.scenes import EmojiScenes


@pytest.mark.parametrize("objects", [1, 2, "mixed"])
def test_every_block_of_a_hundred_shows_each_class_once(objects) -> None:
    labels = EmojiScenes(1000, seed=5, objects=objects).layout(range(300)).labels
    for block in labels[:, 0].reshape(3, 100):
        assert sorted(block) == list(range(100))
    assert (labels[:100, 0] != labels[100:200, 0]).any()


def test_second_objects_are_balanced_and_never_the_first() -> None:
    labels = EmojiScenes(1000, seed=5, objects=2).layout(range(200)).labels
    for block in labels[:, 1].reshape(2, 100):
        assert sorted(block) == list(range(100))
    assert (labels[:, 0] != labels[:, 1]).all()


def test_a_choice_of_classes_is_balanced_too() -> None:
    scenes = EmojiScenes(60, seed=5, objects=2, classes=["fox", 70, 7])
    labels = scenes.layout(range(60)).labels
    for block in labels.reshape(20, 3, 2):
        assert sorted(block[:, 0]) == sorted(block[:, 1]) == [3, 7, 70]
    assert (labels[:, 0] != labels[:, 1]).all()


def test_one_object_is_within_the_picture() -> None:
    layout = EmojiScenes(2000, seed=1).layout(range(2000))
    half = layout.scales[:, :, None] / 2
    assert (layout.centres - half >= -1e-12).all()
    assert (layout.centres + half <= 1 + 1e-12).all()
    assert 0.4 <= layout.scales.min() < 0.41
    assert 0.94 < layout.scales.max() <= 0.95
    degrees = np.degrees(2 * np.arctan(layout.tilts))
    assert -20 <= degrees.min() < -19.8
    assert 19.8 < degrees.max() <= 20
    assert abs(layout.mirrored.mean() - 0.5) < 0.05
    assert layout.gains.min() >= 0.75 * 0.9
    assert layout.gains.max() <= 1.15 * 1.1
    assert np.abs(np.bincount(layout.artists[:, 0]) / 2000 - 1 / 3).max() < 0.05


def test_two_objects_are_in_opposite_corners() -> None:
    layout = EmojiScenes(500, seed=1, objects=2).layout(range(500))
    assert ((layout.centres[:, 0] < 0.5) != (layout.centres[:, 1] < 0.5)).all()
    for corner in ((True, True), (True, False), (False, True), (False, False)):
        share = ((layout.centres[:, 0] < 0.5) == corner).all(axis=1).mean()
        assert 0.15 < share < 0.35
    assert layout.scales.min() >= 0.38
    assert layout.scales.max() <= 0.5


def test_three_in_ten_mixed_scenes_have_two_objects() -> None:
    layout = EmojiScenes(4000, seed=1, objects="mixed").layout(range(4000))
    paired = layout.labels[:, 1] >= 0
    assert abs(paired.mean() - 0.3) < 0.03
    assert ((layout.artists[:, 1] >= 0) == paired).all()
    assert (layout.scales[paired] <= 0.5).all()


def test_backgrounds_have_the_groups_colour_with_the_given_probability() -> None:
    of_class = np.array(group_of_class())
    layouts = {
        strength: EmojiScenes(2000, seed=1, background_strength=strength).layout(range(2000))
        for strength in (0.0, 0.3, 1.0)
    }
    told = {strength: layout.background_groups >= 0 for strength, layout in layouts.items()}
    assert not told[0.0].any()
    assert abs(told[0.3].mean() - 0.3) < 0.04
    assert told[1.0].all()
    for strength, layout in layouts.items():
        groups = of_class[layout.labels[:, 0]]
        assert (layout.background_groups == groups)[told[strength]].all()
    themed = layouts[1.0]
    of_group = [themed.background_colours[themed.background_groups == group] for group in range(4)]
    means = np.array([colours.mean(axis=0) for colours in of_group])
    nearest = np.abs(themed.background_colours[:, None] - means).sum(axis=2).argmin(axis=1)
    assert (nearest == themed.background_groups).mean() > 0.99
    # what is not told stays as it is without the option
    plain, some = layouts[0.0], layouts[0.3]
    assert (plain.background_colours == some.background_colours)[~told[0.3]].all()
    assert (plain.labels == themed.labels).all()
    assert (plain.centres == themed.centres).all()
