"""Which factor values have enough images to be measured, and truths that are permuted, to know what chance finds."""

import torch
from jaxtyping import Bool
from torch import Tensor

__all__ = ["MIN_IMAGES", "measurable", "permuted"]

MIN_IMAGES = 5
"""The fewest images with a value, and without, in each half. The AUROC of a single image is any number by chance."""


def measurable(
    truth: Bool[Tensor, "image value"], *halves: Bool[Tensor, "image"], min_images: int = MIN_IMAGES
) -> list[int]:
    """The columns of which each half has at least `min_images` images with the value, and as many without.

    Raises:
        ValueError: If `min_images` is below 1.

    >>> truth = torch.tensor([[True, True], [False, True], [True, False], [False, True]])
    >>> measurable(truth, torch.tensor([True, True, False, False]), min_images=1)
    [0]
    """
    if min_images < 1:
        raise ValueError(f"min_images must be at least 1, got {min_images}")
    counts = [(truth[half].sum(dim=0), int(half.sum())) for half in halves]
    good = [(shown >= min_images) & (n - shown >= min_images) for shown, n in counts]
    return torch.stack(good).all(dim=0).nonzero()[:, 0].tolist()


def permuted(
    truth: Bool[Tensor, "image value"], *halves: Bool[Tensor, "image"], seed: int = 0
) -> Bool[Tensor, "image value"]:
    """Truths that belong to other images of the same half: every value keeps its number of images in each.

    >>> halves = torch.tensor([True, False] * 3), torch.tensor([False, True] * 3)
    >>> permuted(torch.tensor([[True], [False]] * 3), *halves)[:, 0].tolist()
    [True, False, True, False, True, False]
    """
    generator, moved = torch.Generator().manual_seed(seed), truth.clone()
    for half in halves:
        order = torch.randperm(int(half.sum()), generator=generator)
        moved[half] = truth[half][order]
    return moved
