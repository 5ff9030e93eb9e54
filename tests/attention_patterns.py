"""The attention patterns of a run with interventions."""

from typing import Any

import torch
from torch import Tensor

from hooked_vit import HookedViT


def logits_and_patterns(model: HookedViT, images: Tensor, hooks: Any) -> tuple[Tensor, Tensor]:
    """Logits and patterns [layer batch head query key] with hooks on."""
    with model.hooks(fwd_hooks=hooks):
        logits, cache = model.run_with_cache(images, names_filter="pattern")
    return logits, torch.stack([cache["pattern", layer] for layer in range(model.cfg.n_layers)])
