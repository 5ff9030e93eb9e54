"""Transforms of pictures see the model's picture in 8 bits, draw alike for the same image, and must keep its size."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from perturbed_batches import MEAN, STD, model_with_pictures, perturbed_batch
from PIL import Image, ImageOps

from analyses.robustness import GaussianBlur, GaussianNoise, OnPictures
from analyses.robustness.pictures import seeded


def test_the_identity_changes_no_bit() -> None:
    batch = perturbed_batch("cls")
    assert batch.images is not None
    assert torch.equal(OnPictures(lambda picture: picture)(batch), batch.images)


def test_a_transform_is_applied_to_each_picture() -> None:
    batch = perturbed_batch("gap_registers_layerscale")
    assert batch.images is not None
    found = OnPictures(ImageOps.mirror, moves_pixels=True)(batch)
    assert torch.equal(found, batch.images.flip(-1))
    inverted = OnPictures(ImageOps.invert)(batch)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    torch.testing.assert_close(inverted * std + mean, 1 - (batch.images * std + mean), rtol=1e-5, atol=1e-5)


def of_numpy() -> float:
    return float(np.random.random())  # noqa: NPY002


def of_torch() -> float:
    return float(torch.rand(()))


@pytest.mark.parametrize("draw", [of_numpy, of_torch, random.random])
def test_chance_depends_on_the_image_and_the_seed_alone(draw: Callable[[], float]) -> None:
    def coloured(picture: Image.Image) -> Image.Image:
        return Image.new("RGB", picture.size, (int(255 * draw()), int(255 * draw()), 0))

    together = OnPictures(coloured)(perturbed_batch("cls", (4, 5, 6)))
    alone = OnPictures(coloured)(perturbed_batch("cls", (5,)))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(OnPictures(coloured, seed=1)(perturbed_batch("cls", (5,)))[0], alone[0])


def test_the_global_generators_are_left_as_they_were() -> None:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    def drawn() -> None:
        random.random(), of_numpy(), of_torch()
        raise RuntimeError

    with pytest.raises(RuntimeError), seeded(3, 4):
        drawn()
    assert random.getstate() == before[0]
    assert str(np.random.get_state()) == str(before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_noise_has_its_deviation_and_blur_keeps_the_mean() -> None:
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    with seeded(0, 0):
        noisy = np.asarray(GaussianNoise(0.1)(grey)) / 255
    assert noisy.std() == pytest.approx(0.1, rel=0.05)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    blurred = np.asarray(GaussianBlur(2.0)(picture)).astype(float)
    assert blurred.std() < 0.3 * np.asarray(picture).std()
    assert blurred.mean() == pytest.approx(np.asarray(picture).mean(), abs=2)


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    batch = perturbed_batch("cls")
    with pytest.raises(ValueError, match=r"turned a picture of 24 × 32 pixels into one of 12 × 16: it must keep"):
        OnPictures(lambda picture: picture.resize((12, 16)))(batch)
    with pytest.raises(ValueError, match=r"expected a PIL image from the transform .*, got ndarray"):
        OnPictures(lambda picture: np.asarray(picture))(batch)  # pyright: ignore
    model = model_with_pictures("cls").with_weights(model_with_pictures("cls")._tensors())
    model.data_config = None
    with pytest.raises(ValueError, match="the model's preprocessing is unknown"):
        model.input_of(Image.new("RGB", (24, 32)))
