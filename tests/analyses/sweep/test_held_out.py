"""Datasets that are the same but for their length are recognised, others are not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import Subset

from analyses.data import EmojiScenes
from analyses.sweep.describe import describe
from analyses.sweep.held_out import refuse_fitted, share_images


class FirstOfEach:
    """A dataset with `n` images of each class, and lists that follow from it."""

    def __init__(self, root: str, n: int):
        self.root, self.n, self.labels = root, n, list(range(n))
        self.pixels = torch.zeros(n, 3)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.pixels[index], self.labels[index]


IMAGES = [(torch.full((3, 4, 4), float(index)), index % 7) for index in range(9)]


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        (lambda: EmojiScenes(64, seed=0), lambda: EmojiScenes(16, seed=0), True),
        (lambda: EmojiScenes(64, seed=0), lambda: EmojiScenes(64, seed=1), False),
        (lambda: EmojiScenes(64, seed=0), lambda: EmojiScenes(16, seed=0, objects=2), False),
        (lambda: FirstOfEach("a", 3), lambda: FirstOfEach("a", 5), True),
        (lambda: FirstOfEach("a", 3), lambda: FirstOfEach("b", 5), False),
        (lambda: IMAGES[:6], lambda: IMAGES[5:], True),
        (lambda: IMAGES[:6], lambda: IMAGES[6:], False),
        (lambda: Subset(IMAGES, range(6)), lambda: Subset(IMAGES, range(6, 9)), False),
        (lambda: 20 * IMAGES, lambda: 20 * IMAGES, True),
    ],
)
def test_same_images(then: Callable[[], Any], now: Callable[[], Any], expected: bool) -> None:
    fitted_to, dataset = describe(then()), now()
    assert share_images(fitted_to, describe(dataset)) is expected
    if expected:
        with pytest.raises(ValueError, match="the probe was fitted to images of this dataset"):
            refuse_fitted(fitted_to, dataset, "the probe")
    else:
        refuse_fitted(fitted_to, dataset, "the probe")


def test_what_keeps_no_record_is_not_refused() -> None:
    refuse_fitted(None, IMAGES, "the lens")
