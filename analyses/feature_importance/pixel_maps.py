"""Maps from gradients with respect to pixels, by captum: input gradients, integrated gradients, and others."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from analyses.feature_importance.memory import images_within, within_budget
from analyses.feature_importance.traits import with_traits
from hooked_vit import HookedViT

__all__ = ["captum_map", "input_gradients", "integrated_gradients"]

STEPS_AT_ONCE = 32  # images in a forward pass of integrated gradients, or fewer within the memory budget


@with_traits(needs_pixels=True)
@within_budget(gradients=True)
def input_gradients(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """The class logit's gradient with respect to pixels, in absolute value, averaged over each patch (Saliency).

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> input_gradients(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14])).shape
    torch.Size([2, 64])
    """
    return captum_map("Saliency", model, images, classes, start_at_layer=start_at_layer)


@with_traits(needs_pixels=True)
@within_budget(gradients=True)
def integrated_gradients(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    n_steps: int = 32,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """Integrated gradients (Sundararajan et al., 2017) from a picture of the mean colour, averaged over each patch.

    Costs `n_steps` gradients per image.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> integrated_gradients(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14]), n_steps=4).shape
    torch.Size([2, 64])
    """
    n_tokens = model.cfg.token_layout_at(*images.shape[-2:]).n_tokens if images.ndim == 4 else images.shape[1]
    at_once = min(STEPS_AT_ONCE, images_within(model.cfg, n_tokens, gradients=True))
    options = {"n_steps": n_steps, "internal_batch_size": max(at_once, len(images))}
    return captum_map("IntegratedGradients", model, images, classes, start_at_layer=start_at_layer, **options)


def captum_map(
    method: str,
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    start_at_layer: Literal[0] | None = None,
    **options: Any,
) -> Float[Tensor, "batch patch"]:
    """Any class of `captum.attr` that attributes a prediction to its input, averaged over the pixels of each patch.

    Args:
        method: The name of the class, such as `"InputXGradient"`.
        model: The model.
        images: Preprocessed images.
        classes: The class of each image.
        start_at_layer: Must be `None`, since pixels are needed.
        options: Keyword arguments of its `attribute`.

    Raises:
        ValueError: If the stream's start is given instead of pixels.
        ImportError: If captum is not installed.
    """
    if start_at_layer is not None:
        raise ValueError(f"{method} differentiates with respect to pixels: pass images, not the stream's start")
    try:
        from captum import attr
    except ImportError as error:
        raise ImportError(f"{method} needs captum: pip install 'hooked-vit[explain]'") from error
    targets = model.class_indices(classes, len(images), several=True)[:, 0]
    with torch.inference_mode(False), torch.enable_grad():
        pixels = images.clone().requires_grad_()
        attribution = getattr(attr, method)(model).attribute(pixels, target=targets, **options)
    return _by_patch(attribution.detach().to(images), model.cfg.patch_size)


def _by_patch(
    attribution: Float[Tensor, "batch channel height width"], patch_size: tuple[int, int]
) -> Float[Tensor, "batch patch"]:
    """Means over the patches; where a padded picture ends within a patch, over the pixels that exist."""
    return F.avg_pool2d(attribution.mean(dim=1), patch_size, ceil_mode=True, count_include_pad=False).flatten(1)
