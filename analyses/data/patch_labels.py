"""Labels of an image's patches from its object mask: object or context."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Shaped
from torch import Tensor

__all__ = ["token_labels"]


def token_labels(
    mask: Shaped[Tensor, "*batch height width"],
    grid: tuple[int, int],
    anchor: Literal["corner", "centre"] = "corner",
) -> Bool[Tensor, "*batch patch"]:
    """The label of each patch, class-labelled (True) or context (False): the mask resized to the grid of patches.

    The mask is resized by nearest neighbour: patch (r, c) of a grid of R × C takes the mask pixel

        row floor(r · height / R),         column floor(c · width / C)            (anchor="corner")
        row floor((r + 1/2) · height / R), column floor((c + 1/2) · width / C)    (anchor="centre")

    in whole-number arithmetic. The first is called "nearest" in OpenCV and torch, and is used in the paper's published
    figures: the patch's top left pixel decides. The second, PIL's, removes that bias of half a patch.

    Patches are ordered row by row, like a model's patch tokens: `model.token_layout.grid` is the grid, and the labels
    match `[..., model.token_layout.patches]`. The mask must be cropped like the image, but may have any resolution.

    Args:
        mask: True (or any whole number but 0) where the object is; any axes before height and width.
        grid: Number of patches from top to bottom and from left to right.
        anchor: The pixel of a patch that decides.

    Raises:
        ValueError: If the mask has no height and width or holds fractions, or the grid no patches.

    >>> mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1]])
    >>> token_labels(mask, grid=(2, 3)).int()
    tensor([0, 1, 1, 0, 0, 0], dtype=torch.int32)
    >>> token_labels(mask, grid=(2, 3), anchor="centre").int()
    tensor([0, 1, 1, 0, 0, 1], dtype=torch.int32)
    """
    if mask.ndim < 2 or 0 in mask.shape[-2:]:
        raise ValueError(f"expected a mask of shape [... height width], got {tuple(mask.shape)}")
    if mask.is_floating_point():
        raise ValueError(f"expected a mask of bool or whole numbers, got {mask.dtype}: pass `mask > 0.5`, for instance")
    if min(grid) < 1:
        raise ValueError(f"expected a grid of at least 1 × 1 patches, got {grid}: pass `model.token_layout.grid`")
    if anchor not in ("corner", "centre"):
        raise ValueError(f"expected anchor 'corner' or 'centre', got {anchor!r}")
    rows, columns = (
        _nearest(n_patches, n_pixels, anchor) for n_patches, n_pixels in zip(grid, mask.shape[-2:], strict=True)
    )
    on_grid = mask[..., rows.to(mask.device)[:, None], columns.to(mask.device)] != 0
    return rearrange(on_grid, "... row column -> ... (row column)")


def _nearest(n_patches: int, n_pixels: int, anchor: str) -> Tensor:
    halves = 2 * torch.arange(n_patches) + (anchor == "centre")
    return halves * n_pixels // (2 * n_patches)
