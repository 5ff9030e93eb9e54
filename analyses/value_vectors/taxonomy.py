"""Semantic similarity of classes: Unicode groups, WordNet categories, or a user's taxonomy."""

from bisect import bisect_right
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.data.emoji_scenes.classes import emoji_classes

__all__ = ["Taxonomy", "class_similarity", "emoji_taxonomy", "taxonomy_of", "wordnet_taxonomy"]

Taxonomy = Sequence[Sequence[str]]
"""One path of names per class, from coarse to fine, such as `("Food & Drink", "food-fruit")`."""

# The offsets in WordNet 3.0's noun file, which name synsets, at which each of its source files begins; each bound lies
# between the ImageNet-21k synsets on either side.
_WORDNET_FILES = (
    (0, "tops"), (29_000, "act"), (1_200_000, "animal"), (2_665_600, "artifact"), (4_616_000, "attribute"),
    (5_215_000, "body"), (5_610_000, "cognition"), (6_250_000, "communication"), (7_283_000, "event"),
    (7_480_000, "feeling"), (7_555_500, "food"), (7_938_700, "group"), (8_489_000, "location"), (9_186_000, "object"),
    (9_480_000, "person"), (11_400_000, "phenomenon"), (11_529_500, "plant"), (13_240_000, "possession"),
    (13_423_000, "process"), (13_570_000, "quantity"), (13_780_000, "relation"), (13_860_000, "shape"),
    (13_920_000, "state"), (14_580_000, "substance"), (15_110_000, "time"),
)  # fmt: skip


def emoji_taxonomy() -> tuple[tuple[str, str], ...]:
    """Unicode group and subgroup of each class of Emoji Scenes.

    >>> emoji_taxonomy()[3]
    ('Animals & Nature', 'animal-mammal')
    """
    return tuple((emoji.group, emoji.subgroup) for emoji in emoji_classes())


def wordnet_taxonomy(n_classes: int = 1000) -> tuple[tuple[str], ...]:
    """WordNet's coarse category of each class of an ImageNet head: animal, artifact, food, plant, person, ...

    timm's tables name each class's synset, and a synset's number shows which of WordNet's source files it comes from.
    They contain no hypernyms: for finer distinctions, pass your own paths to `class_similarity`.

    Args:
        n_classes: Number of classes of a head that timm knows: 1000, 11221, 11821, 21841, 21842 or 21843.

    Raises:
        ValueError: If timm knows no ImageNet with this number of classes.

    >>> taxonomy = wordnet_taxonomy(1000)
    >>> taxonomy[281], taxonomy[954]  # tabby, banana
    (('animal',), ('food',))
    """
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": n_classes})
    if subset is None:
        raise ValueError(
            f"timm knows no ImageNet with {n_classes} classes: pass your own taxonomy, one path of names per class"
        )
    starts = [start for start, _ in _WORDNET_FILES]
    offsets = [int(name[1:]) for name in ImageNetInfo(subset).label_names()]
    return tuple((_WORDNET_FILES[bisect_right(starts, offset) - 1][1],) for offset in offsets)


def taxonomy_of(class_names: Sequence[str]) -> Taxonomy | None:
    """The taxonomy of Emoji Scenes or ImageNet, if the names are those of their classes; otherwise `None`.

    >>> taxonomy_of(["cat", "dog"]) is None
    True
    """
    from hooked_vit.class_names import imagenet_class_names

    if tuple(class_names) == tuple(emoji.name for emoji in emoji_classes()):
        return emoji_taxonomy()
    if tuple(class_names) == imagenet_class_names(len(class_names)):
        return wordnet_taxonomy(len(class_names))
    return None


def class_similarity(taxonomy: Taxonomy) -> Float[Tensor, "n_classes n_classes"]:
    """The similarity of classes in a taxonomy, 0 to 1: Wu and Palmer's `2 * depth(common) / (depth(a) + depth(b))`.

    `common` is the common beginning of the two paths; the similarity of a class with itself is 1.

    Args:
        taxonomy: One path of names per class, from coarse to fine; paths may differ in length.

    Raises:
        ValueError: If a class has no path, or a string instead of a path.

    >>> class_similarity([("food", "fruit"), ("food", "bread"), ("animal", "fish")]).tolist()
    [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    without_path = [i for i, path in enumerate(taxonomy) if isinstance(path, str) or not len(path)]
    if without_path or not len(taxonomy):
        got = repr(taxonomy[without_path[0]]) if without_path else "no class"
        raise ValueError(f"expected one path of names per class, such as ('food', 'fruit'), got {got}")
    depth = max(len(path) for path in taxonomy)
    common = torch.zeros(len(taxonomy), len(taxonomy))
    for level in range(1, depth + 1):
        # shorter paths have no node at this level
        nodes: dict[tuple[str, ...], int] = {}
        ids = [
            nodes.setdefault(tuple(path[:level]), len(nodes)) if len(path) >= level else -1 - i
            for i, path in enumerate(taxonomy)
        ]
        node_of_class = torch.tensor(ids)
        common += (node_of_class[:, None] == node_of_class) & (node_of_class >= 0)
    lengths = torch.tensor([len(path) for path in taxonomy])
    return 2 * common / (lengths[:, None] + lengths)
