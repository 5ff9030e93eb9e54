"""Pixel accuracy and mean IoU of a segmentation in which each pixel has the class of its patch."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["ClassPixels", "count_pixels", "mean_iou", "patch_pixels", "pixel_accuracy", "segmentation_map"]


@dataclass(frozen=True)
class ClassPixels:
    """Numbers of pixels of each class, which add up over images.

    Attributes:
        hits: Pixels of the class that are segmented as it.
        predicted: Pixels that are segmented as the class.
        target: Pixels of the class.
    """

    hits: Int[Tensor, "*axes n_classes"]
    predicted: Int[Tensor, "*axes n_classes"]
    target: Int[Tensor, "*axes n_classes"]

    def __add__(self, other: "ClassPixels") -> "ClassPixels":
        """The counts of both."""
        return ClassPixels(self.hits + other.hits, self.predicted + other.predicted, self.target + other.target)

    @property
    def iou(self) -> Float[Tensor, "*axes n_classes"]:
        """Intersection over union of each class, 0 to 1; NaN for a class that is neither shown nor predicted."""
        return self.hits / (self.predicted + self.target - self.hits)


def segmentation_map(
    top_classes: Int[Tensor, "*batch patch"], grid: tuple[int, int], size: tuple[int, int]
) -> Int[Tensor, "*batch height width"]:
    """The class of each pixel: that of the patch it lies in.

    Args:
        top_classes: The class of each patch, row by row.
        grid: Number of patches from top to bottom and from left to right.
        size: Height and width in pixels; pixel row y lies in patch row `floor(y · rows / height)`.

    Raises:
        ValueError: If there are not as many patches as the grid has.

    >>> segmentation_map(torch.tensor([7, 9]), (1, 2), (2, 4)).tolist()
    [[7, 7, 9, 9], [7, 7, 9, 9]]
    """
    rows, columns = _patch_of_pixel(grid, size)
    if top_classes.shape[-1] != grid[0] * grid[1]:
        raise ValueError(
            f"expected a class for each of {grid[0]} × {grid[1]} patches, got shape {tuple(top_classes.shape)}: pass "
            "`[..., model.token_layout.patches]`"
        )
    return top_classes[..., (rows[:, None] * grid[1] + columns).to(top_classes.device)]


def patch_pixels(
    mask: Bool[Tensor, "*batch height width"], grid: tuple[int, int]
) -> tuple[Int[Tensor, "*batch patch"], Int[Tensor, "patch"]]:
    """How many pixels of an object lie in each patch, and how many pixels each patch has.

    >>> patch_pixels(torch.tensor([[True, False, False], [True, True, False]]), (1, 3))
    (tensor([2, 1, 0]), tensor([2, 2, 2]))
    """
    height, width = mask.shape[-2:]
    rows, columns = _patch_of_pixel(grid, (height, width))
    index = (rows[:, None] * grid[1] + columns).flatten().to(mask.device)
    n_patches = grid[0] * grid[1]
    on_object = torch.zeros(*mask.shape[:-2], n_patches, dtype=torch.long, device=mask.device)
    on_object.index_add_(-1, index, mask.flatten(-2).long())
    return on_object, index.bincount(minlength=n_patches)


def _patch_of_pixel(grid: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    rows, columns = (torch.arange(pixels) * patches // pixels for patches, pixels in zip(grid, size, strict=True))
    return rows, columns


def count_pixels(
    segmentation: Int[Tensor, "*batch height width"],
    target: Int[Tensor, "*batch height width"],
    n_classes: int,
    *,
    background_counts: bool = True,
) -> ClassPixels:
    """Count the pixels of each class in segmentations and in their targets, over all images.

    Args:
        segmentation: The class of each pixel.
        target: The true class of each pixel; -1 for background, which is no class.
        n_classes: How many classes there are.
        background_counts: Whether a class that is predicted on background has wrong pixels there; False leaves
            background out altogether.

    Raises:
        ValueError: If the shapes differ.

    >>> segmentation, target = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, -1, 1, 0]])
    >>> count_pixels(segmentation, target, 2).iou.tolist(), mean_iou(count_pixels(segmentation, target, 2))
    ([0.3333333432674408, 0.5], tensor(0.4167))
    """
    if segmentation.shape != target.shape:
        raise ValueError(
            f"segmentation and target must be of one shape, got {tuple(segmentation.shape)} and {tuple(target.shape)}"
        )
    known = target >= 0
    counted = segmentation if background_counts else segmentation[known]
    return ClassPixels(
        target[known & (segmentation == target)].bincount(minlength=n_classes),
        counted.flatten().bincount(minlength=n_classes),
        target[known].bincount(minlength=n_classes),
    )


def mean_iou(pixels: ClassPixels) -> Float[Tensor, "*axes"]:
    """The mean of the IoU over the classes that the targets show, 0 to 1; NaN if they show none."""
    return torch.where(pixels.target > 0, pixels.iou, torch.nan).nanmean(dim=-1)


def pixel_accuracy(pixels: ClassPixels) -> Float[Tensor, "*axes"]:
    """The share of the targets' pixels that are segmented as their class, 0 to 1."""
    return pixels.hits.sum(dim=-1) / pixels.target.sum(dim=-1)
