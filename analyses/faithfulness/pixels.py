"""Removal in pixel space: patches of the image are painted over, or uncovered, one after another."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from analyses.faithfulness.removal import RemovalCurve, checked_steps, curve_of
from hooked_vit import HookedViT
from hooked_vit.input_checks import require_one_grid

__all__ = ["Fill", "deletion_curve", "insertion_curve"]

Fill = Literal["mean", "blur"]

_NAMES = {"mean": "pixels of the patch set to the mean colour", "blur": "pixels of the patch blurred"}


@torch.no_grad()
def deletion_curve(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"],
    labels: Int[Tensor, "batch"],
    order: Int[Tensor, "batch patch"],
    n_removed: Sequence[int] | None = None,
    *,
    fill: Fill = "mean",
    samples: str = "all images",
) -> RemovalCurve:
    """Like `removal_curve`, but the tokens stay: the pixels of removed patches are painted over.

    Each step costs a full pass and shows the model images unlike its training images, whereas removing tokens does
    neither. This is the usual method for networks of any architecture.

    Args:
        model: The model.
        images: Preprocessed images of the model's own size.
        labels: The class of each image.
        order: Each image's patches in the order of removal.
        n_removed: The numbers of removals to evaluate; by default all, from none to all patches.
        fill: `"mean"`, the mean colour (0 once normalised), or `"blur"`, the image blurred beyond the size of a patch.
        samples: A description of the images, stored with the result.

    Raises:
        ValueError: If `order` is not an order of the patches, or there is no such fill.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> order = torch.arange(64).expand(2, -1)
    >>> deletion_curve(model, torch.ones(2, 3, 64, 64), torch.tensor([3, 14]), order, n_removed=[0, 64]).removal
    'pixels of the patch set to the mean colour'
    """
    if fill not in _NAMES:
        raise ValueError(f"expected fill 'mean' or 'blur', got {fill!r}")
    model.require_several_classes("accuracy under removal")
    require_one_grid(images)
    layout = model.token_layout
    steps = checked_steps(order, n_removed, len(images), layout.n_patches, layout.n_patches)
    removed_at = order.to(images.device).argsort(dim=1)
    filled = torch.zeros_like(images) if fill == "mean" else _blurred(images, model.cfg.patch_size)
    predictions = []
    for n in steps:
        gone = layout.to_grid(removed_at < n)
        for axis, size in zip((1, 2), model.cfg.patch_size, strict=True):
            gone = gone.repeat_interleave(size, dim=axis)
        gone = gone[:, None, : images.shape[2], : images.shape[3]]  # a padded image ends within its last patches
        predictions.append(model(torch.where(gone, filled, images)))
    return curve_of(predictions, labels, steps, layout.n_patches, _NAMES[fill], samples)


def insertion_curve(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"],
    labels: Int[Tensor, "batch"],
    order: Int[Tensor, "batch patch"],
    n_removed: Sequence[int] | None = None,
    *,
    fill: Fill = "mean",
    samples: str = "all images",
) -> RemovalCurve:
    """Predictions while patches are uncovered in `order`, starting from an image that is painted over.

    `n_removed` counts patches that are still covered, so the curve is read from its end: it equals `deletion_curve`
    of the reversed order.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> order, labels = torch.arange(64).expand(2, -1), torch.tensor([3, 14])
    >>> insertion_curve(model, torch.ones(2, 3, 64, 64), labels, order, n_removed=[0, 64]).removal
    'pixels of the patch set to the mean colour, uncovered in order'
    """
    curve = deletion_curve(model, images, labels, order.flip(1), n_removed, fill=fill, samples=samples)
    return replace(curve, removal=f"{curve.removal}, uncovered in order")


def _blurred(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Two box blurs of two patches' size: nearly Gaussian, and no patch keeps its detail."""
    kernel = [2 * size + 1 for size in patch_size]
    padding = (kernel[1] // 2, kernel[1] // 2, kernel[0] // 2, kernel[0] // 2)
    for _ in range(2):
        # padding repeats the pixels at the edge, whatever the size of the image
        images = F.avg_pool2d(F.pad(images, padding, mode="replicate"), kernel, stride=1)
    return images
