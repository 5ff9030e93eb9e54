"""Quantities of a run that may tell right answers from wrong ones: of each block in class space, and of the output."""

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.projection import project, stream_names
from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache

__all__ = ["BASELINE", "BLOCK_QUANTITIES", "failure_names", "failure_quantities"]

BASELINE = "confidence"
"""The largest probability of the output, which others are compared with (Hendrycks and Gimpel 2017)."""

BLOCK_QUANTITIES = ("margin", "agreement", "support")
"""The quantities of each block; see `failure_quantities`."""


def failure_names(cfg: HookedViTConfig) -> list[str]:
    """The hook points that `failure_quantities` reads: a `names_filter` for `run_with_cache`."""
    return stream_names(cfg, "resid_post")


@torch.no_grad()
def failure_quantities(
    model: HookedViT, cache: ViTActivationCache, logits: Float[Tensor, "batch n_classes"]
) -> dict[str, Float[Tensor, "layer batch"]]:
    """Three quantities of each block, from the stream that leaves it; larger is expected where the answer is right.

    - `margin`: the head is applied to the stream (to CLS, or to whatever it reads), as if the block were the last: the
      largest logit minus the second largest.
    - `agreement`: the share of patches whose top class is that of the head at the same block.
    - `support`: the share of patches whose top class is the model's answer.

    None of them reads the label. After the last block `margin` is that of the output, and the other two are equal.

    Args:
        model: The model.
        cache: Holds the hook points of `failure_names`, with a batch axis.
        logits: The model's output.

    Raises:
        ValueError: If the model has fewer than two classes, or the cache lacks a hook point.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> logits, cache = model.run_with_cache(torch.randn(2, 3, 64, 64), names_filter=failure_names(model.cfg))
    >>> found = failure_quantities(model, cache, logits)
    >>> {name: tuple(values.shape) for name, values in found.items()}
    {'margin': (8, 2), 'agreement': (8, 2), 'support': (8, 2)}
    """
    model.require_several_classes("a margin")
    patches = model.token_layout.patches
    top = project(model, cache, "resid_post", k=1).top_classes[..., patches, 0]  # [layer batch patch]
    answer = logits.argmax(dim=-1)
    found: dict[str, list[Tensor]] = {name: [] for name in BLOCK_QUANTITIES}
    for layer in range(model.cfg.n_layers):
        read = model.head_logits(cache["resid_post", layer])
        largest = read.topk(2, dim=-1)
        found["margin"].append((largest.values[:, 0] - largest.values[:, 1]).float())
        found["agreement"].append((top[layer] == largest.indices[:, :1]).float().mean(dim=-1))
        found["support"].append((top[layer] == answer[:, None]).float().mean(dim=-1))
    return {name: torch.stack(values) for name, values in found.items()}
