"""Perturbations by name and from another dataset, and the errors of names, numbers and datasets that do not fit."""

from typing import Any

import pytest
import torch
from perturbed_batches import item, model_with_pictures, perturbed_batch

from analyses.data import EmojiScenes
from analyses.data.emoji_scenes.rendering import render
from analyses.robustness import (
    FGSM,
    PGD,
    FromDataset,
    GaussianBlur,
    GaussianNoise,
    Occlusion,
    PatchShuffle,
    named_perturbations,
    perturbation,
)
from analyses.robustness.named import InputPerturbation


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("occlusion", Occlusion(0.5)),
        ("occlusion:0.25", Occlusion(0.25)),
        ("patch_shuffle", PatchShuffle()),
        ("patch_shuffle:2", PatchShuffle((2, 2))),
        ("fgsm:2", FGSM(2.0)),
        ("pgd", PGD(1.0)),
    ],
)
def test_names(spec: str, expected: Any) -> None:
    found = perturbation(spec)
    assert found == expected
    assert isinstance(found, InputPerturbation)


def test_names_of_transforms() -> None:
    found: Any = named_perturbations(["noise:0.1", "blur"])
    assert {name: perturb.transform for name, perturb in found.items()} == {
        "noise_0.1": GaussianNoise(0.1),
        "blur": GaussianBlur(2.0),
    }


def test_backgrounds_are_those_of_swapped_scenes() -> None:
    scenes = EmojiScenes(5, seed=3)
    perturb = perturbation("background", scenes)
    assert isinstance(perturb, FromDataset)
    clean, found = scenes.batch([4, 1]).images, torch.stack([perturb.dataset[index][0] for index in (4, 1)])
    alphas = torch.from_numpy(render(scenes.layout([4, 1]), 64).alphas[:, 0])
    changed = (clean != found).any(dim=1)
    assert changed[alphas == 0].all()
    assert not changed[alphas == 255].any()


def test_items_are_those_of_the_other_dataset() -> None:
    batch = perturbed_batch("cls", (2, 4))
    other = [(2 * item(index)[0], index % 7) for index in range(5)]
    found = FromDataset(other)(batch)
    assert torch.equal(found, torch.stack([other[2][0], other[4][0]]))


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown perturbation 'fogg': expected NAME or NAME:NUMBER, with one of"):
        perturbation("fogg")
    with pytest.raises(ValueError, match="'noise:much': expected a number after the colon"):
        perturbation("noise:much")
    with pytest.raises(ValueError, match=r"'patch_shuffle:1\.5': expected a whole number after the colon"):
        perturbation("patch_shuffle:1.5")
    with pytest.raises(ValueError, match="backgrounds can be swapped in Emoji Scenes only, got list"):
        perturbation("background", [])
    with pytest.raises(ValueError, match="expected each perturbation once, got blur, blur"):
        named_perturbations(["blur", "blur"])


def test_errors_of_datasets() -> None:
    batch = perturbed_batch("cls", (2, 4))
    with pytest.raises(ValueError, match="has 4 items, and image 4 has no counterpart"):
        FromDataset([item(index)[:2] for index in range(4)])(batch)
    with pytest.raises(ValueError, match="item 4 of the perturbed dataset has label 0, the image has 4"):
        FromDataset([(item(index)[0], (0, 1, 2, 3, 0)[index]) for index in range(5)])(batch)
    size = (3, 64, 48)
    assert model_with_pictures("cls").cfg.image_size == (32, 24)
    with pytest.raises(ValueError, match=r"has images of shape \(3, 64, 48\), the sweep's of \(3, 32, 24\)"):
        FromDataset([(torch.zeros(size), index) for index in range(5)])(batch)
