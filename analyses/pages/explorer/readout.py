"""What the model's head would say after each block, packed for a page."""

from collections.abc import Sequence
from typing import Any

import torch

from analyses.pages.explorer.packing import packed
from analyses.projection import class_ranks
from hooked_vit import HookedViT, ViTActivationCache

__all__ = ["readouts"]


@torch.no_grad()
def readouts(model: HookedViT, cache: ViTActivationCache, classes: Sequence[int]) -> dict[str, Any]:
    """Rank and logit of some classes if the head, with its pooling, read each block's output instead of the last one's.

    Where the head reads CLS alone, this is the projection of CLS.

    Args:
        model: The model.
        cache: The cache of one image, with `resid_post`.
        classes: By index.

    Returns:
        `rank` and `logit` [layer chosen], exact.
    """
    streams = torch.cat([cache["resid_post", layer] for layer in range(model.cfg.n_layers)])
    class_logits = model.head_logits(streams.to(model.cfg.device)).float()
    ranks = [
        class_ranks(class_logits, torch.full_like(class_logits[:, 0], label, dtype=torch.long)) for label in classes
    ]
    return {"rank": packed(torch.stack(ranks, dim=-1)), "logit": packed(class_logits[:, list(classes)])}
