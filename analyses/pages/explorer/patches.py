"""Activation patching from the first picture of an explorer page into the second, packed for the page."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.pages.explorer.packing import packed
from analyses.patching.activation import activation_patching
from analyses.patching.metrics import logit_difference
from hooked_vit import HookedViT

__all__ = ["patching_effects"]


def patching_effects(
    model: HookedViT,
    images: Float[Tensor, "2 channel height width"],
    label: int,
    against: int | None,
    *,
    progress: bool | None = False,
) -> dict[str, Any]:
    """The share of the two runs' difference that each token's stream, and each head, restores alone.

    The parts of the first picture's run are copied into the second picture's (`activation_patching`, denoising).

    Args:
        model: The model.
        images: The two pictures.
        label: A class.
        against: Another one: the metric is the difference of the two logits; `None`: the class's logit.
        progress: Whether to show a bar on standard error; `None` shows it if that is a terminal.

    Returns:
        `label`, `against`; the metric of both runs, `first` and `second`; `tokens` [layer token], for `resid_post`,
        and `heads` [layer head], for `z`, as shares: 0 without an effect, 1 where the difference is restored.

    Raises:
        ValueError: If the metric does not differ between the pictures.
    """
    metric = logit_difference(label, against=against)
    tokens, heads = (
        activation_patching(model, images[:1], images[1:], metric, stream, progress=progress)
        for stream in ("resid_post", "z")
    )
    if torch.equal(tokens.source, tokens.base):
        raise ValueError(
            "patching needs a metric that differs between the two pictures, and it does not: pass two pictures that "
            "the model tells apart, or name other classes"
        )
    return {
        "label": label,
        "against": against,
        "first": float(tokens.source),
        "second": float(tokens.base),
        "tokens": packed(tokens.recovered),
        "heads": packed(heads.recovered),
    }
