"""The Emoji Scenes dataset: any number of pictures of emoji, with exact masks, a taxonomy and controlled edits."""

import copy
import difflib
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from analyses.data.emoji_scenes.batch import Scene, SceneBatch, collect
from analyses.data.emoji_scenes.classes import ARTISTS, EmojiClass, class_index, emoji_classes, emoji_groups
from analyses.data.emoji_scenes.draws import SceneDraws
from analyses.data.emoji_scenes.edits import MoveObject, Occlude, SceneEdit, SwapBackground, SwapObject
from analyses.data.emoji_scenes.layout import SceneLayout, SceneRecipe, draw_layout
from analyses.data.emoji_scenes.rendering import render

__all__ = ["EmojiScenes"]

_PATCH_SIZE = 8


class EmojiScenes(Dataset[tuple[Tensor, int, Tensor]]):
    """`n` scenes: a background with one or two emoji, and their labels, masks and boxes.

    An item is a pure function of (options, seed, index): the same bytes on every machine, in every process, alone or
    in any batch. A longer dataset with the same seed begins with the same scenes. Three ways to read it:

    - `image, label, mask = scenes[i]`: the items for every analysis; a DataLoader draws whole batches at once and
      collates them. Label and mask are those of the first object; the second is a distractor.
    - `scenes.batch(indices)` and `scenes.scene(i)`: everything, as a `SceneBatch` or `Scene`.
    - `scenes.picture(i)`: the picture as a PIL image.

    A scene has a background of one colour with noise of five grains; an object at 0.4 to 0.95 of the picture's
    side, turned by up to 20 degrees, mirrored half the time, anywhere it fits, of brightness 0.75 to 1.15 and
    colour gains 0.9 to 1.1, or two objects at 0.38 to 0.5 in opposite corners; and pixel noise of 0.03.

    Classes are balanced: any run of 100 items that starts at a multiple of 100 shows each class once as the
    first object, in an order of its own, and the second objects are balanced alike; the two always differ.

    Experiments are datasets too. `scenes.swap_object()` is a dataset whose item i is item i of `scenes` with
    one thing changed and every other pixel equal. Their randomness comes from the dataset's seed and their own.

    >>> scenes = EmojiScenes(1000, seed=0)
    >>> image, label, mask = scenes[7]
    >>> image.shape, scenes.class_names[label], mask.shape
    (torch.Size([3, 64, 64]), 'carrot', torch.Size([64, 64]))
    >>> corrupt = scenes.swap_object(relation="same_group")  # the same backgrounds and places, other classes
    >>> scenes.taxonomy[label].subgroup, scenes.taxonomy[corrupt[7][1]].subgroup
    ('food-vegetable', 'food-fruit')
    """

    class_names: ClassVar[tuple[str, ...]] = tuple(emoji.name for emoji in emoji_classes())
    """Names by label."""
    taxonomy: ClassVar[tuple[EmojiClass, ...]] = emoji_classes()
    """Name, emoji, Unicode group and subgroup by label."""

    def __init__(
        self,
        n: int,
        seed: int,
        image_size: int = 64,
        objects: Literal[1, 2, "mixed"] = 1,
        artists: Sequence[str] = ARTISTS,
        classes: Sequence[int | str] | None = None,
        scale: tuple[float | int, float | int] = (0.4, 0.95),
        background_strength: float | int = 0.0,
    ):
        """Configure the dataset; scenes are drawn when they are read.

        Args:
            n: Number of scenes.
            seed: Seed of the scenes. Train and test on different seeds.
            image_size: Pixels per side, a multiple of the patch size 8.
            objects: 1 object anywhere, 2 in opposite corners, or "mixed": two in 30 % of scenes.
            artists: Artists of the emoji: any of "noto", "twemoji", "fluent-3d".
            classes: The classes to draw, by label or name; `None` for all 100. Labels stay the same.
            scale: Smallest and largest side of the object in one-object scenes, as a share of the picture's side.
            background_strength: Probability, 0 to 1, that the background has a colour of the first object's
                Unicode group (green, orange, blue or violet tones) instead of any colour.

        Raises:
            ValueError: If an option is invalid.
        """
        if n < 1:
            raise ValueError(f"expected at least one scene, got n={n}: pass how many scenes the dataset has")
        if image_size < _PATCH_SIZE or image_size % _PATCH_SIZE:
            near = max(1, round(image_size / _PATCH_SIZE)) * _PATCH_SIZE
            raise ValueError(
                f"expected an image_size that patches of {_PATCH_SIZE} pixels divide, got {image_size}: "
                f"pass {near}, for instance"
            )
        if objects not in (1, 2, "mixed"):
            raise ValueError(f"expected objects=1, 2 or 'mixed', got {objects!r}: pass one of the three")
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"expected scale=(low, high) with 0 < low <= high <= 1, got {scale}")
        if not 0 <= background_strength <= 1:
            raise ValueError(
                f"expected a background_strength from 0 to 1, got {background_strength}: "
                "0 for any background, 1 for always the group's"
            )
        self.n = n
        self.seed = seed
        self.image_size = image_size
        self._recipe = SceneRecipe(
            objects=objects,
            artists=_checked_artists(artists),
            classes=_checked_classes(classes, objects),
            scale=(float(scale[0]), float(scale[1])),
            background_strength=float(background_strength),
        )
        self._edits: tuple[SceneEdit, ...] = ()

    def __len__(self) -> int:
        return self.n

    def __getitem__(
        self, index: int
    ) -> tuple[Float32[Tensor, "channel=3 height width"], int, Bool[Tensor, "height width"]]:
        """Image (as `Scene.image`), class and mask of the first object."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int, Tensor]]:
        """Several items, drawn as one batch; a DataLoader calls this."""
        batch = self.batch(indices)
        return list(zip(batch.images, batch.labels[:, 0].tolist(), batch.masks[:, 0], strict=True))

    # ------------------------------------------------------------------ scenes

    def batch(self, indices: Sequence[int] | np.ndarray | Int[Tensor, "batch"]) -> SceneBatch:
        """Some scenes, drawn together, on as many threads as torch uses.

        Raises:
            IndexError: If an index is outside the dataset.

        >>> batch = EmojiScenes(1000, seed=0, objects="mixed").batch(range(32))
        >>> batch.images.shape, batch.labels.shape, batch.masks.shape
        (torch.Size([32, 3, 64, 64]), torch.Size([32, 2]), torch.Size([32, 2, 64, 64]))
        """
        checked = self._checked_indices(indices)
        layout = self.layout(checked)
        return collect(checked, layout, render(layout, self.image_size))

    def scene(self, index: int) -> Scene:
        """One scene with all its labels, masks and boxes."""
        return self.batch([index])[0]

    def picture(self, index: int) -> Image.Image:
        """One scene as an RGB picture of `image_size` pixels per side."""
        return self.scene(index).picture

    def layout(self, indices: Sequence[int] | np.ndarray | Int[Tensor, "batch"]) -> SceneLayout:
        """The content of the scenes as numbers: positions, sizes, rotations, colours, artists."""
        draws = SceneDraws(self.seed, self._checked_indices(indices))
        layout = draw_layout(self._recipe, draws)
        for edit in self._edits:
            layout = edit(layout, self._recipe, draws, self.image_size)
        return layout

    # ------------------------------------------------------------------ edits

    def swap_object(
        self,
        to_class: int | str | None = None,
        relation: Literal["any", "same_group", "other_group"] = "any",
        which: int = 0,
        seed: int = 0,
    ) -> "EmojiScenes":
        """The same scenes with another class for object `which`: the corrupt half of a pair.

        Background, pixel noise, artist, position, size, rotation and colour gains stay, so a pair differs only where
        one of the two emoji is. With `which=1`, scenes without a second object do not change.

        Args:
            to_class: The class to swap in (a scene that shows it already does not change), or `None` for a
                random class that is not in the scene.
            relation: For a random class: "same_group" as the class that it replaces, "other_group", or "any".
            which: 0 for the first object, 1 for the second.
            seed: Seed of the random classes.

        Raises:
            ValueError: If the class or object does not exist.
        """
        if relation not in ("any", "same_group", "other_group"):
            raise ValueError(f"expected relation 'any', 'same_group' or 'other_group', got {relation!r}")
        label = None if to_class is None else class_index(to_class)
        return self._edited(SwapObject(label, relation, self._checked_object(which), seed))

    def move_object(
        self, shift: tuple[float | int, float | int] | None = None, which: int = 0, seed: int = 0
    ) -> "EmojiScenes":
        """The same scenes with object `which` moved.

        Args:
            shift: Distance in pixels, right and down (it may leave the picture); `None` for a random position
                where it fits, in one of the two free corners in scenes of two objects.
            which: 0 for the first object, 1 for the second.
            seed: Seed of the random positions.

        Raises:
            ValueError: If the object does not exist.
        """
        pixels = None if shift is None else (float(shift[0]), float(shift[1]))
        return self._edited(MoveObject(pixels, self._checked_object(which), seed))

    def swap_background(self, group: str | None = None, seed: int = 0) -> "EmojiScenes":
        """The same objects on other backgrounds.

        Args:
            group: The Unicode group whose colours the backgrounds have, or `None` for any colour.
            seed: Seed of the backgrounds.

        Raises:
            ValueError: If the group does not exist.
        """
        groups = emoji_groups()
        if group is not None and group not in groups:
            raise ValueError(f"expected a group out of {', '.join(map(repr, groups))}, got {group!r}")
        return self._edited(SwapBackground(-1 if group is None else groups.index(group), seed))

    def occlude(self, share: float | int = 0.5, which: int = 0, seed: int = 0) -> "EmojiScenes":
        """The same scenes with a share of object `which` covered by a flat rectangle; its mask is what stays visible.

        Args:
            share: The least share of the mask to hide, above 0 up to 1; the rectangle starts at a random side and
                ends at the first row or column of pixels that reaches the share.
            which: 0 for the first object, 1 for the second.
            seed: Seed of the sides and colours.

        Raises:
            ValueError: If the share is out of range or the object does not exist.
        """
        if not 0 < share <= 1:
            raise ValueError(f"expected a share to hide above 0 and up to 1, got {share}: 0.5 hides one half")
        return self._edited(Occlude(float(share), self._checked_object(which), seed))

    # ------------------------------------------------------------------ checks

    def _edited(self, edit: SceneEdit) -> "EmojiScenes":
        edited = copy.copy(self)
        edited._edits = (*self._edits, edit)
        return edited

    def _checked_object(self, which: int) -> int:
        if not 0 <= which < self._recipe.n_objects:
            known = "0, the only object" if self._recipe.n_objects == 1 else "0 or 1"
            raise ValueError(f"expected which={known}, got {which}: a second object needs objects=2 or 'mixed'")
        return which

    def _checked_indices(self, indices: Sequence[int] | np.ndarray | Int[Tensor, "batch"]) -> np.ndarray:
        checked = np.asarray(indices, dtype=np.int64)
        if checked.ndim != 1:
            raise ValueError(f"expected a sequence of indices, got {indices!r}: for one scene use scenes.scene(index)")
        outside = checked[(checked < -self.n) | (checked >= self.n)]
        if outside.size:
            raise IndexError(f"expected scenes from 0 to {self.n - 1}, got {outside[0]}: the dataset has n={self.n}")
        return np.where(checked < 0, checked + self.n, checked)


def _checked_artists(artists: Sequence[str]) -> tuple[int, ...]:
    if isinstance(artists, str):
        artists = (artists,)
    if not artists:
        raise ValueError(f"expected at least one artist, got none: pass any of {', '.join(ARTISTS)}")
    for artist in artists:
        if artist not in ARTISTS:
            near = difflib.get_close_matches(artist, ARTISTS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"no artist is called {artist!r}: {hint}known are {', '.join(ARTISTS)}")
    return tuple(ARTISTS.index(artist) for artist in artists)


def _checked_classes(classes: Sequence[int | str] | None, objects: int | str) -> tuple[int, ...]:
    if classes is None:
        return tuple(range(len(emoji_classes())))
    labels = tuple(dict.fromkeys(class_index(emoji_class) for emoji_class in classes))
    fewest = 1 if objects == 1 else 2
    if len(labels) < fewest:
        raise ValueError(f"expected at least {fewest} different classes for objects={objects!r}, got {len(labels)}")
    return labels
