"""Corruptions of pictures: any function from a picture to a picture, with the same chance for the same image."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageFilter
from torch import Tensor

from analyses.analysis.base import AnalysisBatch

__all__ = ["GaussianBlur", "GaussianNoise", "OnPictures", "seeded"]


@dataclass(frozen=True)
class OnPictures:
    """A perturbation of a batch: a transform of each image's picture.

    The transform sees the picture that the model sees: of the size of its input, in 8 bits (as ImageNet-C was made,
    from pictures that had been resized and cropped). What it draws from the global generators of Python, numpy or
    torch depends on the seed and the image's index in the dataset alone; these generators are left as they were.

    Attributes:
        transform: From a PIL image to a PIL image of the same size.
        seed: Seed of the transform's draws.
        moves_pixels: Whether the transform moves the object, so that object masks no longer fit (a rotation).
    """

    transform: Callable[[Image.Image], Image.Image]
    seed: int = 0
    moves_pixels: bool = False

    def __call__(self, batch: AnalysisBatch) -> Float[Tensor, "batch channel height width"]:
        """The perturbed images of a batch.

        Raises:
            ValueError: If the transform changes a picture's size or returns something else, or the model does not know
                its preprocessing.
        """
        assert batch.images is not None
        perturbed = []
        for image, index in zip(batch.images, batch.index.tolist(), strict=True):
            picture = Image.fromarray(np.round(255 * batch.model.picture_of(image)).astype(np.uint8).squeeze())
            with seeded(self.seed, index):
                found = self.transform(picture.copy())
            perturbed.append(batch.model.input_of(_checked(found, picture, self.transform)))
        return torch.stack(perturbed)


def _checked(found: object, picture: Image.Image, transform: object) -> Image.Image:
    name = getattr(transform, "__name__", None) or repr(transform)
    if not isinstance(found, Image.Image):
        raise ValueError(f"expected a PIL image from the transform {name}, got {type(found).__name__}")
    if found.size != picture.size:
        raise ValueError(
            f"the transform {name} turned a picture of {picture.width} × {picture.height} pixels into one of "
            f"{found.width} × {found.height}: it must keep the size, so resize or crop within it"
        )
    return found


@contextmanager
def seeded(seed: int, index: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch by an image's index; afterwards they are as before.

    >>> with seeded(0, 7):
    ...     first = np.random.random()
    >>> with seeded(0, 7):
    ...     first == np.random.random()
    True
    """
    number = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            random.seed(number)
            np.random.seed(number)  # noqa: NPY002
            torch.manual_seed(number)
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002


@dataclass(frozen=True)
class GaussianNoise:
    """Normal noise on every pixel and channel, with a standard deviation as a share of the range of values.

    >>> GaussianNoise(0.0)(Image.new("RGB", (4, 4), "red")).getpixel((0, 0))
    (255, 0, 0)
    """

    deviation: float

    def __call__(self, picture: Image.Image) -> Image.Image:
        """A noisy picture."""
        pixels = np.asarray(picture) / 255
        noisy = pixels + np.random.normal(scale=self.deviation, size=pixels.shape)  # noqa: NPY002
        return Image.fromarray(np.round(255 * noisy.clip(0, 1)).astype(np.uint8))


@dataclass(frozen=True)
class GaussianBlur:
    """A Gaussian blur with a standard deviation in pixels.

    >>> GaussianBlur(1.0)(Image.new("RGB", (4, 4), "red")).getpixel((0, 0))
    (255, 0, 0)
    """

    pixels: float

    def __call__(self, picture: Image.Image) -> Image.Image:
        """A blurred picture."""
        return picture.filter(ImageFilter.GaussianBlur(self.pixels))
