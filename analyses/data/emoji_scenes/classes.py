"""The 100 emoji classes: their names and their groups in the Unicode taxonomy."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from hooked_vit.class_names import find_class

__all__ = ["ARTISTS", "EmojiClass", "class_index", "emoji_classes", "emoji_groups", "group_of_class"]

ARTISTS = ("noto", "twemoji", "fluent-3d")
"""The artists, in the order that `SceneBatch.artists` indexes."""


@dataclass(frozen=True)
class EmojiClass:
    """One class: its name, and its place in the Unicode taxonomy.

    `group` is coarse ("Animals & Nature"), `subgroup` fine ("animal-mammal").
    """

    index: int
    name: str
    emoji: str
    group: str
    subgroup: str


@cache
def emoji_classes() -> tuple[EmojiClass, ...]:
    """All classes, in the order of the labels and of emoji-vit's logits.

    >>> emoji_classes()[3]
    EmojiClass(index=3, name='fox', emoji='🦊', group='Animals & Nature', subgroup='animal-mammal')
    """
    table = json.loads((resources.files("hooked_vit") / "assets" / "emoji_classes.json").read_text("utf-8"))
    fields = ("index", "name", "emoji", "group", "subgroup")
    return tuple(EmojiClass(**{field: row[field] for field in fields}) for row in table["classes"])


@cache
def emoji_groups() -> tuple[str, ...]:
    """The Unicode groups, in order of first appearance; `group_of_class` and `background_groups` index them.

    >>> emoji_groups()
    ('Animals & Nature', 'Food & Drink', 'Travel & Places', 'Objects')
    """
    return tuple(dict.fromkeys(emoji.group for emoji in emoji_classes()))


@cache
def group_of_class() -> tuple[int, ...]:
    """For each class, the index of its group in `emoji_groups()`.

    >>> emoji_groups()[group_of_class()[class_index("pizza")]]
    'Food & Drink'
    """
    return tuple(emoji_groups().index(emoji.group) for emoji in emoji_classes())


def class_index(emoji_class: int | str) -> int:
    """The label of a class given by name or label.

    Raises:
        ValueError: If no class has this name (similar ones are suggested) or label.

    >>> class_index("fox"), class_index(3)
    (3, 3)
    """
    if isinstance(emoji_class, str):
        return find_class(emoji_class, [emoji.name for emoji in emoji_classes()])
    n_classes = len(emoji_classes())
    if not 0 <= emoji_class < n_classes:
        raise ValueError(
            f"expected a class from 0 to {n_classes - 1}, got {emoji_class}: "
            "pass a label in that range, or a name from EmojiScenes.class_names"
        )
    return int(emoji_class)
