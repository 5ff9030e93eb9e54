"""The class table is complete and consistent, and unknown classes are refused."""

import pytest

from analyses.data.emoji_scenes.classes import class_index, emoji_classes, emoji_groups, group_of_class


def test_a_hundred_classes_in_order() -> None:
    classes = emoji_classes()
    assert [emoji.index for emoji in classes] == list(range(100))
    assert len({emoji.name for emoji in classes}) == 100
    assert [class_index(emoji.name) for emoji in classes] == list(range(100))


def test_groups() -> None:
    assert len(emoji_groups()) == 4
    assert all(
        emoji_groups()[group] == emoji.group for group, emoji in zip(group_of_class(), emoji_classes(), strict=True)
    )


@pytest.mark.usefixtures("bad_input")
def test_unknown_classes() -> None:
    with pytest.raises(ValueError, match=r"no class is called 'girafe'.*did you mean 'giraffe'"):
        class_index("girafe")
    for label in (-1, 100):
        with pytest.raises(ValueError, match=f"expected a class from 0 to 99, got {label}: pass a label in that range"):
            class_index(label)
