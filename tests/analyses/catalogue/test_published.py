"""Published values come by the weights' own name, and say whether a dataset is theirs."""

from pathlib import Path

import pytest
import timm

from analyses.catalogue.published import PUBLISHED, in_published_setting, published_of
from analyses.data.imagenet_s import ImageNetS
from analyses.sweep.describe import describe


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("vit_base_patch32_224.augreg_in21k_ft_in1k", "ViT-B/32"),
        ("hf-hub:timm/vit_base_patch16_224.augreg_in21k_ft_in1k", "ViT-B/16"),
        ("vit_base_patch16_224_miil.in21k_ft_in1k", "ViT-B/16-MIIL"),
        ("refinement", "ViT-B/16-Refinement"),
        ("l/16", "ViT-L/16"),
    ],
)
def test_a_model_is_known_by_its_weights_or_its_short_name(name: str, title: str) -> None:
    found = published_of(name)
    assert found is not None
    assert found.title == title


@pytest.mark.parametrize(
    "name",
    ["", "emoji-vit", "vit_base_patch32_224", "vit_base_patch16_224.augreg2_in21k_ft_in1k", "vit_base_patch32_384.x"],
)
def test_other_weights_are_other_models(name: str) -> None:
    assert published_of(name) is None


def test_names_are_timms() -> None:
    known = set(timm.list_pretrained())
    assert [name for model in PUBLISHED.values() for name in model.names if name not in known] == []
    assert all({"rate", "images_with_one", "accuracy"} <= model.values.keys() for model in PUBLISHED.values())


def test_the_published_setting_is_five_images_a_class_of_imagenet_s(tmp_path: Path) -> None:
    for part in ("validation", "validation-segmentation"):
        for index in range(5):
            name = f"{index}.JPEG" if part == "validation" else f"{index}.png"
            path = tmp_path / "ImageNetS919" / part / "n01440764" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    five, all_of_them = (ImageNetS(tmp_path, n=n) for n in (5, None))
    assert in_published_setting({"description": describe(five)})
    assert not in_published_setting({"description": describe(all_of_them)})
    assert not in_published_setting({"description": "a text"})
    assert not in_published_setting({})
