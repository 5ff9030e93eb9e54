"""Finding a class by its name, and ImageNet's names."""

import re
from typing import Any

import pytest
from conftest import make_timm

from hooked_vit import HookedViT
from hooked_vit.class_names import find_class, imagenet_class_names, numbered_class_names, ordered_class_names

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


def test_names_by_class_index_are_put_in_order() -> None:
    assert ordered_class_names({2: "c", 0: "a", 1: "b"}) == ("a", "b", "c")
    assert ordered_class_names(["a", "b"]) == ("a", "b")


WRONG_NAMES = [
    ("cat", "expected a list with one name per class, got the string 'cat'"),
    ({"cat": 0, "dog": 1}, "or a dict from the class indices 0, 1, … to names, got a dict with keys 'cat', 'dog'"),
    ({1: "cat", 2: "dog"}, "got a dict with keys 1, 2"),
    ({"cat"}, "got 'cat' without an order"),
    ([0, 1, 2, 3, 4, 5, 6], "expected class names as strings, got 0, 1, 2, 3, 4, …"),
]


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(("names", "message"), WRONG_NAMES)
def test_other_class_names_are_refused_wherever_a_model_takes_them(names: Any, message: str) -> None:
    """Not read as their letters or keys."""
    module, model = make_timm("cls"), HookedViT.from_pretrained("emoji-vit")
    for load in (
        lambda: HookedViT(model.cfg, names),
        lambda: HookedViT.from_timm(module, names),
        lambda: HookedViT.from_pretrained("emoji-vit", class_names=names),
        lambda: model.with_class_embeddings(model.W_U[:, :3], class_names=names),
        lambda: model.with_weights(dict(model.named_parameters()), class_names=names),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            load()


def test_a_model_takes_names_by_class_index() -> None:
    names = {index: f"name {index}" for index in reversed(range(7))}
    model = HookedViT.from_timm(make_timm("cls"), names)
    assert model.class_names == tuple(f"name {index}" for index in range(7))
    two = model.with_class_embeddings(model.W_U[:, :2], class_names={1: "b", 0: "a"})
    assert two.class_names == HookedViT(two.cfg, {0: "a", 1: "b"}).class_names == ("a", "b")
    with pytest.raises(ValueError, match="expected 2 class names, one for each class, got 3"):
        model.with_class_embeddings(model.W_U[:, :2], class_names={1: "b", 0: "a", 2: "c"})
