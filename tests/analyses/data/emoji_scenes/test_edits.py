"""Controlled edits change what they should, and no other pixel."""

import numpy as np
import pytest
import torch

from analyses.data.emoji_scenes.classes import group_of_class
from analyses.data.emoji_scenes.rendering import render
from analyses.data.emoji_scenes.scenes import EmojiScenes

ROWS = range(48)
GROUPS = torch.tensor(group_of_class())


@pytest.fixture(scope="module")
def scenes() -> EmojiScenes:
    return EmojiScenes(200, seed=9, objects="mixed", scale=(0.4, 0.7), background_strength=0.5)


def alphas(scenes: EmojiScenes) -> torch.Tensor:
    return torch.from_numpy(render(scenes.layout(ROWS), scenes.image_size).alphas)


def differs(a: EmojiScenes, b: EmojiScenes) -> torch.Tensor:
    """Which pixels differ, [batch height width]."""
    return (a.batch(ROWS).pixels != b.batch(ROWS).pixels).any(dim=1)


@pytest.mark.parametrize("which", [0, 1])
def test_swapped_pairs_differ_only_at_the_two_emoji(scenes: EmojiScenes, which: int) -> None:
    corrupt = scenes.swap_object(which=which)
    before, after = scenes.batch(ROWS), corrupt.batch(ROWS)
    there = before.labels[:, which] >= 0
    assert (before.labels[:, which] != after.labels[:, which]).equal(there)
    assert torch.equal(before.labels[:, 1 - which], after.labels[:, 1 - which])
    assert torch.equal(before.artists, after.artists)
    assert torch.equal(before.background_groups, after.background_groups)
    both = after.labels[:, 1] >= 0
    assert (after.labels[both, 0] != after.labels[both, 1]).all()
    touched = (alphas(scenes)[:, which] > 0) | (alphas(corrupt)[:, which] > 0)
    changed = differs(scenes, corrupt)
    assert not (changed & ~touched).any()
    assert changed.flatten(1).any(dim=1).equal(there)


def test_swapped_in_classes(scenes: EmojiScenes) -> None:
    before = scenes.batch(ROWS).labels[:, 0]
    assert (scenes.swap_object("fox").batch(ROWS).labels[:, 0] == 3).all()
    same = scenes.swap_object(relation="same_group").batch(ROWS).labels[:, 0]
    other = scenes.swap_object(relation="other_group").batch(ROWS).labels[:, 0]
    assert (GROUPS[same] == GROUPS[before]).all()
    assert (same != before).all()
    assert (GROUPS[other] != GROUPS[before]).all()
    assert (scenes.swap_object(seed=1).batch(ROWS).labels[:, 0] != scenes.swap_object().batch(ROWS).labels[:, 0]).any()


def test_moved_objects(scenes: EmojiScenes) -> None:
    moved = scenes.move_object()
    touched = (alphas(scenes)[:, 0] > 0) | (alphas(moved)[:, 0] > 0)
    changed = differs(scenes, moved)
    assert not (changed & ~touched).any()
    assert changed.flatten(1).any(dim=1).all()
    before, after = scenes.layout(ROWS), moved.layout(ROWS)
    assert (before.centres[:, 1] == after.centres[:, 1]).all()
    paired = after.labels[:, 1] >= 0
    quarters = after.centres[paired] >= 0.5
    assert ((quarters[:, 0] == quarters[:, 1]).sum(axis=1) == 1).all()


def test_shifted_by_a_patch(scenes: EmojiScenes) -> None:
    shifted = scenes.move_object(shift=(8, 16))
    before, after = alphas(scenes)[:, 0].int(), alphas(shifted)[:, 0].int()
    assert (before[:, :-16, :-8] - after[:, 16:, 8:]).abs().float().mean() < 0.5
    assert torch.equal(scenes.batch(ROWS).labels, shifted.batch(ROWS).labels)


def test_swapped_backgrounds(scenes: EmojiScenes) -> None:
    other = scenes.swap_background()
    opaque = (alphas(scenes) == 255).any(dim=1)
    changed = differs(scenes, other)
    assert not (changed & opaque).any()
    assert changed[~opaque].float().mean() > 0.9
    assert torch.equal(alphas(scenes), alphas(other))
    assert (other.batch(ROWS).background_groups == -1).all()
    assert (scenes.swap_background("Objects").batch(ROWS).background_groups == 3).all()


@pytest.mark.parametrize(("share", "which"), [(0.25, 0), (0.5, 1), (1.0, 0)])
def test_occluders_hide_the_share(scenes: EmojiScenes, share: float, which: int) -> None:
    occluded = scenes.occlude(share, which=which)
    before, after = scenes.batch(ROWS), occluded.batch(ROWS)
    there = before.labels[:, which] >= 0
    assert torch.equal(before.labels, after.labels)
    assert not (after.masks & ~before.masks).any()
    whole, left = (one.masks[there, which].flatten(1).sum(1) for one in (before, after))
    longest_line = torch.stack([before.masks[there, which].sum(dim).amax(-1) for dim in (1, 2)]).amax(0)
    assert (whole - left >= share * whole).all()
    assert (whole - left <= share * whole + longest_line).all()
    within = torch.zeros(len(ROWS), 64, 64, dtype=torch.bool)
    for row, (x0, y0, x1, y1) in enumerate(occluded.layout(ROWS).occluders[:, which]):
        within[row, y0:y1, x0:x1] = True
    assert not (differs(scenes, occluded) & ~within).any()


def test_edits_add_up(scenes: EmojiScenes) -> None:
    both = scenes.swap_object("fox").swap_background(seed=2).batch(ROWS)
    assert (both.labels[:, 0] == 3).all()
    assert torch.equal(both.artists, scenes.batch(ROWS).artists)
    assert not differs(scenes, scenes.move_object((0, 0))).any()
    twice = scenes.occlude(0.3, which=0).occlude(0.3, which=1).layout(ROWS)
    assert (twice.occluders[:, 0] == scenes.occlude(0.3, which=0).layout(ROWS).occluders[:, 0]).all()
    assert (twice.occluders[:, 1].any(axis=1) == (twice.labels[:, 1] >= 0)).all()


def test_an_edited_item_depends_only_on_its_index(scenes: EmojiScenes) -> None:
    edited = scenes.swap_object().move_object().swap_background().occlude(0.4)
    alone = edited.batch([17])
    assert torch.equal(edited.batch(ROWS).pixels[17], alone.pixels[0])
    assert np.array_equal(edited.layout(ROWS).labels[17], edited.layout([17]).labels[0])


@pytest.mark.usefixtures("bad_input")
def test_bad_input(scenes: EmojiScenes) -> None:
    one = EmojiScenes(10, seed=0)
    with pytest.raises(ValueError, match="expected a class from 0 to 99, got 100"):
        one.swap_object(100)
    with pytest.raises(ValueError, match="expected relation 'any', 'same_group' or 'other_group', got 'near'"):
        one.swap_object(relation="near")
    with pytest.raises(ValueError, match="expected which=0, the only object, got 1: a second object needs objects=2"):
        one.swap_object(which=1)
    with pytest.raises(ValueError, match="expected which=0 or 1, got 2"):
        scenes.move_object(which=2)
    with pytest.raises(ValueError, match=r"expected a group out of 'Animals & Nature'.*got 'Food'"):
        one.swap_background("Food")
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="expected a share to hide above 0 and up to 1"):
            one.occlude(share)
    few = EmojiScenes(10, seed=0, classes=["fox", "cat"])
    with pytest.raises(ValueError, match="relation='other_group' leaves none among 2 classes: give the dataset more"):
        few.swap_object(relation="other_group").batch([0])
