"""The contribution of every component to the logits of some classes, packed for a page; or why it is not defined."""

from collections.abc import Sequence
from typing import Any

import torch

from analyses.attribution import attribution_names, logit_attribution
from analyses.pages.explorer.packing import packed
from hooked_vit import HookedViT, ViTActivationCache

__all__ = ["contribution_names", "contributions"]


def contribution_names(model: HookedViT) -> list[str]:
    """The hook points that `contributions` reads: none if attribution is not defined for the model.

    >>> len(contribution_names(HookedViT.from_pretrained("emoji-vit")))
    20
    """
    return attribution_names(model.cfg) if _why_not(model) is None else []


def contributions(model: HookedViT, cache: ViTActivationCache, classes: Sequence[int]) -> dict[str, Any]:
    """`analyses.attribution.logit_attribution` of each class.

    Args:
        model: The model.
        cache: The cache of one image, with the hook points of `contribution_names`.
        classes: By index.

    Returns:
        `logit` [chosen], `constant`, `embed`, `pos_embed` (unless `embed` includes it) [chosen], `attn_bias`, `mlp`
        [chosen layer], `head` [chosen layer head], all as float32; or `why_not`, a sentence.
    """
    why_not = _why_not(model)
    if why_not is not None:
        return {"why_not": why_not}
    attributions = [logit_attribution(model, cache, [label]) for label in classes]
    stacked = {}
    for name in ("logit", "constant", "embed", "pos_embed", "attn_bias", "mlp", "head"):
        parts = [getattr(attribution, name) for attribution in attributions]
        if parts[0] is not None:
            image_axis = 1 if name in ("attn_bias", "mlp", "head") else 0
            stacked[name] = packed(torch.stack([part.select(image_axis, 0) for part in parts]))
    return stacked


def _why_not(model: HookedViT) -> str | None:
    try:
        model.require_classes()
        model.require_linear_readout()
    except ValueError as error:
        return str(error).split(":")[0]
    return None
