"""The content of a scene before it is drawn: its objects, their positions and sizes, and its background."""

from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from analyses.data.emoji_scenes.classes import emoji_groups, group_of_class
from analyses.data.emoji_scenes.draws import SceneDraws

__all__ = ["SceneLayout", "SceneRecipe", "background_colours", "draw_layout", "place_within"]

_MAX_TILT = 0.17632698070846498
"""tan(10 degrees): an object turns by up to twice that angle."""
_PAIR_SCALE = (0.38, 0.5)
_BRIGHTNESS = (0.75, 1.15)
_GAIN = (0.9, 1.1)
_MIXED_PAIR_SHARE = 0.3
_GROUP_COLOURS = {
    "Animals & Nature": (0.30, 0.58, 0.28),
    "Food & Drink": (0.85, 0.55, 0.25),
    "Travel & Places": (0.35, 0.60, 0.88),
    "Objects": (0.60, 0.35, 0.70),
}
_GROUP_COLOUR_SPREAD = 0.12


@dataclass(frozen=True)
class SceneRecipe:
    """The options of `EmojiScenes` from which scenes are drawn, checked there."""

    objects: int | str
    artists: tuple[int, ...]
    classes: tuple[int, ...]
    scale: tuple[float, float]
    background_strength: float

    @property
    def n_objects(self) -> int:
        """The most objects in one scene."""
        return 1 if self.objects == 1 else 2


@dataclass(frozen=True)
class SceneLayout:
    """A batch of scenes as numbers; `render` draws it, the edits change it.

    Lengths and positions are shares of the picture's side, x to the right and y down from the top left corner;
    colours are 0 to 1. `labels` and `artists` (an index into `ARTISTS`) are -1 where a scene has no second object;
    later objects cover earlier ones. An object is rotated clockwise by 2 atan(`tilt`). `background_groups` is the
    group whose colour the background has, -1 for any colour. `occluders` cover a part of each object with a flat
    rectangle: left, top, right, bottom in pixels, right and bottom excluded; all zero for none.
    """

    labels: Int64[np.ndarray, "batch object"]
    artists: Int64[np.ndarray, "batch object"]
    centres: Float64[np.ndarray, "batch object xy=2"]
    scales: Float64[np.ndarray, "batch object"]
    tilts: Float64[np.ndarray, "batch object"]
    mirrored: Bool[np.ndarray, "batch object"]
    gains: Float64[np.ndarray, "batch object channel=3"]
    background_groups: Int64[np.ndarray, "batch"]
    background_colours: Float64[np.ndarray, "batch channel=3"]
    background_keys: UInt64[np.ndarray, "batch"]
    noise_keys: UInt64[np.ndarray, "batch"]
    occluders: Int64[np.ndarray, "batch object edge=4"]
    occluder_colours: Float64[np.ndarray, "batch object channel=3"]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: slice | np.ndarray) -> "SceneLayout":
        """Some scenes of the batch."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def draw_layout(recipe: SceneRecipe, draws: SceneDraws) -> SceneLayout:
    """The scenes of these items, drawn by the recipe with which emoji-vit was trained."""
    batch, n_objects = len(draws.indices), recipe.n_objects
    paired = _paired(recipe, draws)
    present = np.stack([np.ones(batch, dtype=bool), paired], axis=1)[:, :n_objects]
    labels = _balanced_labels(recipe, draws)[:, :n_objects]
    artists = np.array(recipe.artists)[_whole(draws.uniform("artist", n_objects), len(recipe.artists))]
    scales = np.where(
        paired[:, None],
        draws.uniform("pair scale", n_objects, *_PAIR_SCALE),
        draws.uniform("scale", n_objects, *recipe.scale),
    )
    brightness = draws.uniform("brightness", n_objects, *_BRIGHTNESS)
    gains = draws.uniform("gain", 3 * n_objects, *_GAIN).reshape(batch, n_objects, 3)
    themed = draws.uniform("background group", 1)[:, 0] < recipe.background_strength
    background_groups = np.where(themed, np.array(group_of_class())[labels[:, 0]], -1)
    return SceneLayout(
        labels=np.where(present, labels, -1),
        artists=np.where(present, artists, -1),
        centres=place_within(_quadrants(draws, paired)[:, :n_objects], scales, draws, "place"),
        scales=scales,
        tilts=draws.uniform("tilt", n_objects, -_MAX_TILT, _MAX_TILT),
        mirrored=draws.uniform("mirror", n_objects) < 0.5,
        gains=gains * brightness[:, :, None],
        background_groups=background_groups,
        background_colours=background_colours(background_groups, draws, "background colour"),
        background_keys=draws.keys("background"),
        noise_keys=draws.keys("noise"),
        occluders=np.zeros((batch, n_objects, 4), dtype=np.int64),
        occluder_colours=np.zeros((batch, n_objects, 3)),
    )


def _whole(uniform: np.ndarray, below: int) -> np.ndarray:
    return (uniform * below).astype(np.int64)


def _paired(recipe: SceneRecipe, draws: SceneDraws) -> np.ndarray:
    if recipe.objects == "mixed":
        return draws.uniform("how many", 1)[:, 0] < _MIXED_PAIR_SHARE
    return np.full(len(draws.indices), recipe.objects == 2)


def _balanced_labels(recipe: SceneRecipe, draws: SceneDraws) -> np.ndarray:
    """Permuted blocks: n_classes consecutive items show every class once, in a random order.

    The second objects are the same classes, passed on along a ring of the block's items in random order: so they are
    balanced too, and the two objects of a scene always differ.
    """
    n_classes = len(recipe.classes)
    blocks, block_of_item = np.unique(draws.indices // n_classes, return_inverse=True)
    block_draws = SceneDraws(draws.seed, blocks)
    first = np.argsort(block_draws.uniform("class", n_classes), axis=1, kind="stable")
    ring = np.argsort(block_draws.uniform("second class", n_classes), axis=1, kind="stable")
    second = np.empty_like(first)
    np.put_along_axis(second, ring, np.take_along_axis(first, np.roll(ring, 1, axis=1), axis=1), axis=1)
    in_block = draws.indices % n_classes
    positions = np.stack([first[block_of_item, in_block], second[block_of_item, in_block]], axis=1)
    return np.array(recipe.classes)[positions]


def _quadrants(draws: SceneDraws, paired: np.ndarray) -> np.ndarray:
    """The region of each object, as left, top, side: the whole picture, or opposite quarters for two objects."""
    corner = _whole(draws.uniform("corner", 1)[:, 0], 4)
    first = np.stack([corner % 2, corner // 2], axis=1) / 2
    corners = np.stack([first, 0.5 - first], axis=1) * paired[:, None, None]
    side = np.where(paired, 0.5, 1.0)[:, None, None]
    return np.concatenate([corners, np.broadcast_to(side, (len(corner), 2, 1))], axis=2)


def place_within(
    regions: Float64[np.ndarray, "batch object region=3"],
    scales: Float64[np.ndarray, "batch object"],
    draws: SceneDraws,
    purpose: str,
) -> Float64[np.ndarray, "batch object xy=2"]:
    """Random centres such that each object's square, before rotation, is within its region (left, top, side)."""
    batch, n_objects = scales.shape
    share = draws.uniform(purpose, 2 * n_objects).reshape(batch, n_objects, 2)
    half = scales[:, :, None] / 2
    return regions[:, :, :2] + half + share * (regions[:, :, 2:] - 2 * half)


def background_colours(
    groups: Int64[np.ndarray, "batch"], draws: SceneDraws, purpose: str
) -> Float64[np.ndarray, "batch channel=3"]:
    """Mean colours: near the colour of the group, or any colour where the group is -1."""
    share = draws.uniform(purpose, 3)
    palette = np.array([_GROUP_COLOURS[group] for group in emoji_groups()])
    themed = palette[groups] + (2 * share - 1) * _GROUP_COLOUR_SPREAD
    return np.where(groups[:, None] >= 0, themed, share)
