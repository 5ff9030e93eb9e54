"""Feature importance by block and head, and its sums, packed for a page."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from analyses.feature_importance.importance import importance_from_cache, saturated_blocks
from analyses.pages.explorer.packing import packed_rows
from hooked_vit import HookedViT, ViTActivationCache

__all__ = ["importances"]

_LEVELS = 127


def importances(model: HookedViT, cache: ViTActivationCache, classes: Sequence[int]) -> dict[str, Any]:
    """`analyses.feature_importance.importance` for some classes.

    Args:
        model: The model.
        cache: The cache of one image, with the hook points of `importance_names`.
        classes: By index.

    Returns:
        One array [chosen layer+1 head+1 patch] in nats per unit of attention: after the last head comes the sum over
        heads, after the last block the sum over blocks. `saturated` has the number of blocks, for each class, whose
        importance is exactly 0 because the class's probability rounds to 1. The error in each row is at most its
        largest number / 127.
    """
    chosen = torch.tensor([list(classes)], device=model.cfg.device)
    importance = importance_from_cache(model, cache, chosen)[0]
    packed = packed_rows(_with_sums(_with_sums(importance, 2), 1), _LEVELS)
    return {**packed, "saturated": saturated_blocks(importance).sum(dim=-1).tolist()}


def _with_sums(values: Tensor, axis: int) -> Tensor:
    return torch.cat([values, values.sum(dim=axis, keepdim=True)], dim=axis)
