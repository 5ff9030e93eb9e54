"""Classes are found by typing, among 2 or 21,000 of them; the list stays short, and names without a page say so."""

from collections.abc import Callable
from pathlib import Path

import pytest
from browser import Visit
from conftest import make_timm
from explorer_reading import Reading
from PIL import Image

from analyses.pages.explorer.build import explore
from hooked_vit import HookedViT

PICTURE = Image.new("RGB", (24, 32), (200, 30, 90))


@pytest.fixture
def opened(visit: Callable[..., Visit], tmp_path: Path) -> Callable[..., Reading]:
    """Opens the page of a model with these class names."""

    def open_(names: list[str], asked: list[str]) -> Reading:
        model = HookedViT.from_timm(make_timm("cls", num_classes=len(names)))
        model = model.with_class_embeddings(model.W_U, model.b_U, class_names=names)
        return Reading.when_ready(visit(explore(model, PICTURE, asked).save(tmp_path / "page.html")).page)

    return open_


def found(read: Reading) -> list[str]:
    return read.page.locator("#class [role=option]:not([aria-disabled])").all_inner_texts()


def test_among_thousands_of_classes(opened: Callable[..., Reading]) -> None:
    names = [f"{'grey' if i % 2 else 'night'} heron {i}, Ardea {i % 10}" for i in range(21_000)]
    read = opened(names, [names[7], names[18_001]])
    box = read.page.locator("#class input")
    box.click()
    assert found(read)[:2] == [names[7], names[18_001]]
    assert len(found(read)) in (11, 12)  # ten predicted
    assert "holds 1" in read.text("#class [role=listbox]")
    assert "of the model's 21000 classes" in read.text("#class [role=listbox]")
    box.fill("heron 18001")
    assert found(read) == [names[18_001]]
    box.press("Enter")
    assert read.chosen() == names[18_001]
    box.fill("heron 12345")
    assert found(read) == []
    assert "Not in this page (make it with --class): 1 class" in read.text("#class [role=listbox]")
    assert read.page.locator("#class [role=option]").count() == 1
    box.press("Enter")  # cannot be chosen
    box.press("Escape")
    assert read.chosen() == names[18_001]
    box.fill("heron")
    assert read.page.locator("#class [role=option]").count() <= 20
    box.fill("xyz")
    assert "No class has this in its name" in read.text("#class [role=listbox]")
    read.page.locator("h1").click()
    assert read.chosen() == names[18_001]


def test_two_classes(opened: Callable[..., Reading]) -> None:
    read = opened(["no", "yes"], [])
    read.page.locator("#class input").click()
    assert sorted(found(read)) == ["no", "yes"]
    read.page.locator("#class [role=option]", has_text="yes").click()
    assert read.chosen() == "yes"
    read.choose("no", of="against")
    assert "yes − no" in read.text("#parts-mean")


def test_classes_with_the_same_first_name_are_told_apart(opened: Callable[..., Reading]) -> None:
    read = opened(["crane, a bird", "crane, a machine", "tree"], [])
    read.choose("crane, a machine")
    assert read.text("#takeaway b") == "crane (1)"
    read.choose("tree")
    assert read.text("#takeaway b") == "tree"


def test_keys_in_the_box_are_text(opened: Callable[..., Reading]) -> None:
    read = opened(["park", "spa", "x"], ["x"])
    read.page.locator("#class input").click()
    read.page.keyboard.type("spa")
    read.page.keyboard.press("Enter")
    assert read.chosen() == "spa"
    assert read.page.locator("#stream input:checked").input_value() == "0"
    assert "2 / 2" in read.text("#block-number")
