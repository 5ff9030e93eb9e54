"""Finding a class by its name, and ImageNet's names."""

import pytest

from hooked_vit.class_names import find_class, imagenet_class_names, numbered_class_names

NAMES = ("tabby, tabby cat", "Egyptian cat", "crane", "crane", "tiger cat, tigress")


@pytest.mark.parametrize(
    ("name", "index"), [("tabby cat", 0), ("Tabby", 0), ("egyptian CAT", 1), ("tigress", 4), ("tabby, tabby cat", 0)]
)
def test_a_full_name_or_a_synonym_finds_its_class(name: str, index: int) -> None:
    assert find_class(name, NAMES) == index


def test_a_full_name_wins_over_a_synonym() -> None:
    assert find_class("cat", ("cat, kitten", "cat")) == 1


def test_an_ambiguous_name_lists_its_classes() -> None:
    with pytest.raises(ValueError, match=r"2 classes are called 'crane': 2 \(crane\), 3 \(crane\); give the index"):
        find_class("crane", ("x", "y", "crane", "crane"))


def test_an_unknown_name_suggests_similar_names() -> None:
    with pytest.raises(ValueError, match="no class is called 'taby cat' among 5 classes; did you mean 'tabby cat'"):
        find_class("taby cat", NAMES)


@pytest.mark.parametrize("n_classes", [1000, 11821, 11221, 21841, 21843])
def test_imagenet_heads_have_a_name_for_every_class(n_classes: int) -> None:
    names = imagenet_class_names(n_classes)
    assert names is not None
    assert len(names) == n_classes
    assert all(names)


def test_other_heads_have_numbered_classes() -> None:
    assert imagenet_class_names(37) is None
    assert numbered_class_names(3) == ("class 0", "class 1", "class 2")
