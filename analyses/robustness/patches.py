"""Perturbations of patches: some of them hidden, or all of them in another order."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from analyses.analysis.base import AnalysisBatch

__all__ = ["Occlusion", "PatchShuffle"]


@dataclass(frozen=True)
class Occlusion:
    """Hide a share of the patches, drawn for each image: they are set to the mean colour of the preprocessing.

    Random PatchDrop of Naseer et al. 2021 ("Intriguing Properties of Vision Transformers").

    Attributes:
        share: The share of patches to hide, rounded to whole patches, at least one.
        seed: Seed of the draws; they depend on the seed and the image's index alone.

    Raises:
        ValueError: If the share is not above 0 and at most 1.
    """

    share: float = 0.5
    seed: int = 0
    moves_pixels = False

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"expected a share of patches above 0 and up to 1, got {self.share}: 0.5 hides one half")

    def __call__(self, batch: AnalysisBatch) -> Float[Tensor, "batch channel height width"]:
        """The images with patches hidden."""
        images, grid = _images_and_grid(batch)
        n_patches = grid[0] * grid[1]
        n_hidden = max(1, round(self.share * n_patches))
        order = _orders(batch.index, n_patches, self.seed).to(images.device)
        hidden = torch.zeros(len(images), n_patches, dtype=torch.bool, device=images.device)
        hidden.scatter_(1, order[:, :n_hidden], True)
        cells = _cells(images, grid)
        return _picture(torch.where(hidden[:, :, None], torch.zeros_like(cells), cells), images, grid)


@dataclass(frozen=True)
class PatchShuffle:
    """Cut each image into a grid of pieces and put them in a random order.

    Attributes:
        grid: Pieces from top to bottom and from left to right; the model's patches by default.
        seed: Seed of the orders; they depend on the seed and the image's index alone.
    """

    grid: tuple[int, int] | None = None
    seed: int = 0
    moves_pixels = True

    def __call__(self, batch: AnalysisBatch) -> Float[Tensor, "batch channel height width"]:
        """The images with their pieces in another order.

        Raises:
            ValueError: If the pieces are not whole pixels.
        """
        images, patches = _images_and_grid(batch)
        grid = patches if self.grid is None else self.grid
        if min(grid) < 1 or images.shape[-2] % grid[0] or images.shape[-1] % grid[1]:
            raise ValueError(
                f"images of {images.shape[-2]} × {images.shape[-1]} pixels have no grid of {grid[0]} × {grid[1]} equal "
                "pieces: pass numbers that divide the height and the width"
            )
        order = _orders(batch.index, grid[0] * grid[1], self.seed).to(images.device)
        cells = _cells(images, grid)
        return _picture(cells.gather(1, order[:, :, None].expand_as(cells)), images, grid)


def _images_and_grid(batch: AnalysisBatch) -> tuple[Tensor, tuple[int, int]]:
    assert batch.images is not None
    height, width = batch.images.shape[-2:]
    grid = batch.model.cfg.token_layout_at(height, width).grid
    if height % grid[0] or width % grid[1]:
        raise ValueError(f"images of {height} × {width} pixels do not divide into {grid[0]} × {grid[1]} whole patches")
    return batch.images, grid


def _orders(index: Int[Tensor, "batch"], n: int, seed: int) -> Int[Tensor, "batch n"]:
    """A random order of `n` things for each image, by its index."""
    generator = torch.Generator()
    orders = []
    for image in index.tolist():
        # neighbouring seeds of torch's generator give related first draws
        generator.manual_seed((seed * 2**31 + image) * 0x9E3779B97F4A7C15 % 2**63)
        orders.append(torch.randperm(n, generator=generator))
    return torch.stack(orders)


def _cells(images: Tensor, grid: tuple[int, int]) -> Float[Tensor, "batch cell pixel"]:
    pattern = "batch channel (row h) (column w) -> batch (row column) (channel h w)"
    return rearrange(images, pattern, row=grid[0], column=grid[1])


def _picture(cells: Tensor, like: Tensor, grid: tuple[int, int]) -> Float[Tensor, "batch channel height width"]:
    pattern = "batch (row column) (channel h w) -> batch channel (row h) (column w)"
    height, width = like.shape[-2] // grid[0], like.shape[-1] // grid[1]
    return rearrange(cells, pattern, row=grid[0], column=grid[1], h=height, w=width)
