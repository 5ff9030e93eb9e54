"""True factors equal what a scene's layout and labels say, one scene at a time."""

import pytest
import torch

from analyses.data import ARTISTS, EmojiScenes
from analyses.dictionaries import label_factors, scene_factors


def test_factors_of_scenes_are_those_they_were_drawn_with() -> None:
    scenes = EmojiScenes(40, seed=3, objects="mixed")
    factors = scene_factors(scenes, range(5, 40))
    layout = scenes.layout(range(5, 40))
    for image in range(35):
        shown = {name for name, true in zip(factors.names, factors.truth[image], strict=True) if true}
        expected: set[tuple[str, str]] = set()
        for label, artist in zip(layout.labels[image], layout.artists[image], strict=True):
            if label >= 0:
                emoji = scenes.taxonomy[label]
                expected |= {("class", emoji.name), ("group", emoji.group), ("subgroup", emoji.subgroup)}
                expected |= {("artist", ARTISTS[artist])}
        x, y = layout.centres[image, 0]
        expected |= {("position", f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}")}
        side = layout.scales[image, 0]
        expected |= {("size", "small" if side < 0.55 else "medium" if side < 0.75 else "large")}
        expected |= {("orientation", "mirrored")} if layout.mirrored[image, 0] else set()
        colour = layout.background_colours[image].tolist()
        expected |= {("background", "light" if sum(colour) / 3 >= 0.5 else "dark")}
        expected |= {("background", ("red", "green", "blue")[colour.index(max(colour))])}
        assert shown == expected
    assert set(factors.truth[:, factors.columns("class")].sum(dim=1).tolist()) == {1, 2}
    for column, parent in enumerate(factors.parents):
        if parent >= 0:
            assert (factors.truth[:, parent] | ~factors.truth[:, column]).all()


def test_factors_of_labels_follow_the_taxonomy() -> None:
    paths = [("a", "b"), ("a", "c"), ("d",)]
    factors = label_factors(torch.tensor([[0, -1], [1, 2]]), ["x", "y", "z"], paths)
    assert factors.names == (("group", "a"), ("group", "d"), ("subgroup", "b"), ("subgroup", "c"),
                             ("class", "x"), ("class", "y"), ("class", "z"))  # fmt: skip
    assert factors.parents == (-1, -1, 0, 0, 2, 3, 1)
    assert factors.truth.int().tolist() == [[1, 0, 1, 0, 1, 0, 0], [1, 1, 0, 1, 0, 1, 1]]
    only = factors.of_kinds("class", "group")
    assert only.names == (("class", "x"), ("class", "y"), ("class", "z"), ("group", "a"), ("group", "d"))
    assert only.parents == (-1, -1, 4, -1, -1)
    assert factors.of_images(torch.tensor([1])).truth.int().tolist() == [[1, 1, 0, 1, 0, 1, 1]]
    assert label_factors(torch.tensor([0]), ["x", "y"]).kinds == ("class",)


def test_errors_say_what_is_known() -> None:
    with pytest.raises(ValueError, match="a taxonomy of 2 classes, got 1 paths"):
        label_factors(torch.tensor([0]), ["x", "y"], [("a",)])
    with pytest.raises(ValueError, match="labels below 2, got 0 to 2"):
        label_factors(torch.tensor([0, 2]), ["x", "y"])
    with pytest.raises(ValueError, match="one of class, got 'colour'"):
        label_factors(torch.tensor([0]), ["x", "y"]).columns("colour")
    with pytest.raises(IndexError, match="scenes from 0 to 3"):
        scene_factors(EmojiScenes(4, seed=0), [4])
