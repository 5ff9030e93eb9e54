"""True factors of images: which values of class, group, artist, position, size and background each of them shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from analyses.data.emoji_scenes.classes import ARTISTS
from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.value_vectors.taxonomy import Taxonomy

__all__ = ["Factors", "label_factors", "scene_factors"]

_LEVELS = ("group", "subgroup")
_SIZE_BOUNDS = (0.55, 0.75)
_SIZES = ("small", "medium", "large")
_PLACES = ("top left", "top right", "bottom left", "bottom right")
_TONES = ("red", "green", "blue")


@dataclass(frozen=True)
class Factors:
    """Which factor values images show.

    Attributes:
        names: Factor and value of each column, such as `("group", "Food & Drink")`.
        truth: Whether an image shows it.
        parents: For columns of the taxonomy, the column of the node above; -1 for others.
    """

    names: tuple[tuple[str, str], ...]
    truth: Bool[Tensor, "image value"]
    parents: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The factors, in order."""
        return tuple(dict.fromkeys(factor for factor, _ in self.names))

    def columns(self, factor: str) -> list[int]:
        """The columns of a factor.

        Raises:
            ValueError: If there is no such factor.
        """
        if factor not in self.kinds:
            raise ValueError(f"expected a factor, one of {', '.join(self.kinds)}, got '{factor}'")
        return [column for column, (own, _) in enumerate(self.names) if own == factor]

    def of_images(self, chosen: Int[Tensor, "chosen"] | Bool[Tensor, "image"] | slice) -> "Factors":
        """The factors of some images."""
        return Factors(self.names, self.truth[chosen], self.parents)

    def of_kinds(self, *kinds: str) -> "Factors":
        """Some factors only; a parent that is left out is no parent any more.

        Raises:
            ValueError: If there is no such factor.
        """
        kept = [column for kind in kinds for column in self.columns(kind)]
        position = {column: place for place, column in enumerate(kept)}
        parents = tuple(position.get(self.parents[column], -1) for column in kept)
        return Factors(tuple(self.names[column] for column in kept), self.truth[:, kept], parents)


def label_factors(
    labels: Int[Tensor, "image"] | Int[Tensor, "image object"],
    class_names: Sequence[str],
    taxonomy: Taxonomy | None = None,
) -> Factors:
    """The factors that labels alone give: the class, and its nodes in a taxonomy.

    Args:
        labels: The class of each image, or of each of its objects (-1 for none): it shows all of them.
        class_names: The names of the classes.
        taxonomy: One path per class, from coarse to fine. Its levels are called group and subgroup, then level 3, ….

    Raises:
        ValueError: If the taxonomy has another number of classes, or a label is none of them.

    >>> factors = label_factors(torch.tensor([0, 2]), ["cat", "dog", "fig"], [("animal",), ("animal",), ("food",)])
    >>> factors.names
    (('group', 'animal'), ('group', 'food'), ('class', 'cat'), ('class', 'dog'), ('class', 'fig'))
    >>> factors.truth.int().tolist(), factors.parents
    ([[1, 0, 1, 0, 0], [0, 1, 0, 0, 1]], (-1, -1, 0, 0, 1))
    """
    n_classes = len(class_names)
    paths: list[tuple[str, ...]] = [()] * n_classes if taxonomy is None else [tuple(path) for path in taxonomy]
    if len(paths) != n_classes:
        raise ValueError(f"expected a taxonomy of {n_classes} classes, got {len(paths)} paths")
    if labels.numel() and not (int(labels.min()) >= -1 and int(labels.max()) < n_classes):
        raise ValueError(f"expected labels below {n_classes}, got {int(labels.min())} to {int(labels.max())}")
    names: list[tuple[str, str]] = []
    parents: list[int] = []
    columns: dict[tuple[str, ...], int] = {(): -1}
    for depth in range(1, 1 + max((len(path) for path in paths), default=0)):
        level = _LEVELS[depth - 1] if depth <= len(_LEVELS) else f"level {depth}"
        for node in dict.fromkeys(path[:depth] for path in paths if len(path) >= depth):
            columns[node] = len(names)
            names.append((level, node[-1]))
            parents.append(columns[node[:-1]])
    n_nodes = len(names)
    names += [("class", name) for name in class_names]
    parents += [columns[path] for path in paths]
    # [class column]: the class itself and all nodes above it
    above = torch.zeros(n_classes + 1, len(names), dtype=torch.bool)
    for index, path in enumerate(paths):
        above[index, [columns[path[:depth]] for depth in range(1, len(path) + 1)] + [n_nodes + index]] = True
    shown = above[labels.cpu().reshape(len(labels), -1)]  # no object, -1, is the last row
    return Factors(tuple(names), shown.any(dim=1), tuple(parents))


def scene_factors(scenes: EmojiScenes, index: Sequence[int] | Int[Tensor, "image"]) -> Factors:
    """The true factors of Emoji Scenes: what each scene was drawn with.

    | factor | values |
    |---|---|
    | `group`, `subgroup`, `class` | of any of its objects, in the Unicode taxonomy |
    | `artist` | of any of its objects |
    | `position` | the quadrant of the picture with the first object's centre |
    | `size` | the first object's side: small below 0.55 of the picture's, large from 0.75 on |
    | `orientation` | whether the first object is mirrored |
    | `background` | dark or light (mean of the mean colour below 0.5 or not), and its largest channel |

    Not known, and so in no factor: the content of an emoji that its class does not name (parts, such as eyes and
    wheels; colours; shapes), and the grain of the background's noise. A latent for one of those counts as a latent
    without a factor.

    Raises:
        IndexError: If a scene is outside the dataset.

    >>> factors = scene_factors(EmojiScenes(200, seed=0), range(200))
    >>> factors.kinds
    ('group', 'subgroup', 'class', 'artist', 'position', 'size', 'orientation', 'background')
    >>> factors.truth[:, factors.columns("class")].sum(dim=0).unique()
    tensor([2])
    """
    layout = scenes.layout(np.asarray(index, dtype=np.int64))
    taxonomy = tuple((emoji.group, emoji.subgroup) for emoji in scenes.taxonomy)
    of_labels = label_factors(torch.from_numpy(layout.labels), scenes.class_names, taxonomy)
    right, below = (torch.from_numpy(layout.centres[:, 0, axis] >= 0.5) for axis in (0, 1))
    size = torch.bucketize(
        torch.from_numpy(layout.scales[:, 0].copy()), torch.tensor(_SIZE_BOUNDS).double(), right=True
    )
    colour = torch.from_numpy(layout.background_colours)
    mirrored = torch.from_numpy(layout.mirrored[:, 0])
    light = colour.mean(dim=1) >= 0.5
    artists = torch.from_numpy(layout.artists)
    more: Mapping[str, tuple[Sequence[str], Tensor]] = {
        "artist": (ARTISTS, _one_hot(artists, len(ARTISTS)).any(dim=1)),
        "position": (_PLACES, _one_hot(2 * below.long() + right.long(), 4)),
        "size": (_SIZES, _one_hot(size, 3)),
        "orientation": (("mirrored",), mirrored[:, None]),
        "background": (
            ("dark", "light", *_TONES),
            torch.cat([~light[:, None], light[:, None], _one_hot(colour.argmax(dim=1), 3)], dim=1),
        ),
    }
    names = [*of_labels.names, *((factor, value) for factor, (values, _) in more.items() for value in values)]
    truth = torch.cat([of_labels.truth, *(columns for _, columns in more.values())], dim=1)
    return Factors(tuple(names), truth, of_labels.parents + (-1,) * (len(names) - len(of_labels.parents)))


def _one_hot(index: Tensor, n: int) -> Bool[Tensor, "*axes n"]:
    return index[..., None] == torch.arange(n)
