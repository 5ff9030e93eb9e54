"""Controlled edits of scenes: one thing changes, everything else stays the same to the pixel."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int64

from analyses.data.emoji_scenes.classes import emoji_classes, group_of_class
from analyses.data.emoji_scenes.draws import SceneDraws
from analyses.data.emoji_scenes.layout import SceneLayout, SceneRecipe, background_colours, place_within
from analyses.data.emoji_scenes.rendering import MASK_ALPHA, render

__all__ = ["MoveObject", "Occlude", "SceneEdit", "SwapBackground", "SwapObject"]


@dataclass(frozen=True)
class SwapObject:
    """Another class for object `which`, with the same artist, position, size, rotation and colour gains."""

    to_class: int | None
    relation: str
    which: int
    seed: int

    def __call__(self, layout: SceneLayout, recipe: SceneRecipe, draws: SceneDraws, image_size: int) -> SceneLayout:
        present = layout.labels[:, self.which] >= 0
        other = self._other_classes(layout, recipe, draws, present) if self.to_class is None else self.to_class
        labels = layout.labels.copy()
        labels[:, self.which] = np.where(present, other, -1)
        return replace(layout, labels=labels)

    def _other_classes(
        self, layout: SceneLayout, recipe: SceneRecipe, draws: SceneDraws, present: np.ndarray
    ) -> np.ndarray:
        allowed = np.zeros((len(layout), len(emoji_classes())), dtype=bool)
        allowed[:, list(recipe.classes)] = True
        if self.relation != "any":
            groups = np.array(group_of_class())
            same = groups == groups[layout.labels[:, self.which]][:, None]
            allowed &= same if self.relation == "same_group" else ~same
        for slot in range(layout.labels.shape[1]):
            rows = np.flatnonzero(layout.labels[:, slot] >= 0)
            allowed[rows, layout.labels[rows, slot]] = False
        if not allowed[present].any(axis=1).all():
            raise ValueError(
                f"expected a class to swap in for every scene, but relation={self.relation!r} leaves none among "
                f"{len(recipe.classes)} classes: give the dataset more classes, or pass relation='any' or to_class"
            )
        preference = draws.uniform(f"swap object {self.which} {self.seed}", len(emoji_classes()))
        return np.where(allowed, preference, -1).argmax(axis=1)


@dataclass(frozen=True)
class MoveObject:
    """Object `which` moved by `shift` (right, down) in pixels, or to a random position where it fits.

    The random position of one of two objects is in a free quarter of the picture.
    """

    shift: tuple[float, float] | None
    which: int
    seed: int

    def __call__(self, layout: SceneLayout, recipe: SceneRecipe, draws: SceneDraws, image_size: int) -> SceneLayout:
        centres = layout.centres.copy()
        if self.shift is not None:
            centres[:, self.which] += np.array(self.shift) / image_size
        else:
            scales = layout.scales[:, [self.which]]
            regions = self._free_regions(layout, draws)
            purpose = f"move object {self.which} {self.seed}"
            centres[:, self.which] = place_within(regions[:, None], scales, draws, purpose)[:, 0]
        return replace(layout, centres=centres)

    def _free_regions(self, layout: SceneLayout, draws: SceneDraws) -> np.ndarray:
        paired = (layout.labels >= 0).all(axis=1) & (layout.labels.shape[1] == 2)
        quarter = layout.centres[:, self.which] >= 0.5
        crosses = draws.uniform(f"move object {self.which} {self.seed} across", 1)[:, 0] < 0.5
        quarter ^= np.stack([crosses, ~crosses], axis=1)
        corner = quarter * 0.5 * paired[:, None]
        return np.concatenate([corner, np.where(paired, 0.5, 1.0)[:, None]], axis=1)


@dataclass(frozen=True)
class SwapBackground:
    """Another background; objects and pixel noise stay. With `group` -1 it has any colour, else the group's."""

    group: int
    seed: int

    def __call__(self, layout: SceneLayout, recipe: SceneRecipe, draws: SceneDraws, image_size: int) -> SceneLayout:
        purpose = f"swap background {self.seed}"
        groups = np.full(len(layout), self.group)
        return replace(
            layout,
            background_groups=groups,
            background_colours=background_colours(groups, draws, f"{purpose} colour"),
            background_keys=draws.keys(purpose),
        )


@dataclass(frozen=True)
class Occlude:
    """A flat rectangle over object `which`, from one of its sides until `share` of its mask is hidden.

    The side and the colour are random for each scene. Whole rows or columns of pixels are hidden: the smallest number
    of them that reaches the share.
    """

    share: float
    which: int
    seed: int

    def __call__(self, layout: SceneLayout, recipe: SceneRecipe, draws: SceneDraws, image_size: int) -> SceneLayout:
        occluders, colours = layout.occluders.copy(), layout.occluder_colours.copy()
        occluders[:, self.which] = 0
        alpha = render(replace(layout, occluders=occluders), image_size).alphas[:, self.which]
        mask, touched = np.asarray(alpha >= MASK_ALPHA), np.asarray(alpha > 0)
        side = (draws.uniform(f"occlude side {self.which} {self.seed}", 1)[:, 0] * 4).astype(np.int64)
        from_left, from_right = self._depths(mask.sum(axis=1))
        from_top, from_bottom = self._depths(mask.sum(axis=2))
        left, right = _extent(touched.max(axis=1))
        top, bottom = _extent(touched.max(axis=2))
        right = np.where(side == 0, from_left, right)
        left = np.where(side == 1, image_size - from_right, left)
        bottom = np.where(side == 2, from_top, bottom)
        top = np.where(side == 3, image_size - from_bottom, top)
        rectangle = np.stack([left, top, right, bottom], axis=1)
        occluders[:, self.which] = np.where(mask.max(axis=(1, 2))[:, None], rectangle, 0)
        colours[:, self.which] = draws.uniform(f"occlude colour {self.which} {self.seed}", 3)
        return replace(layout, occluders=occluders, occluder_colours=colours)

    def _depths(self, mask_by_line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many lines, counted from the first and from the last, hold the share of the mask."""
        wanted = self.share * mask_by_line.sum(axis=1, keepdims=True)
        forward = (np.cumsum(mask_by_line, axis=1) >= wanted).argmax(axis=1) + 1
        backward = (np.cumsum(mask_by_line[:, ::-1], axis=1) >= wanted).argmax(axis=1) + 1
        return forward, backward


SceneEdit = SwapObject | MoveObject | SwapBackground | Occlude
"""A change to a batch of layouts; scenes without the object do not change."""


def _extent(
    filled: Bool[np.ndarray, "batch line"],
) -> tuple[Int64[np.ndarray, "batch"], Int64[np.ndarray, "batch"]]:
    """First filled line, and the line after the last one."""
    return filled.argmax(axis=1), filled.shape[1] - filled[:, ::-1].argmax(axis=1)
