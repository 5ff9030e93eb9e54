"""The data of one picture of an explorer page, from one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.feature_importance.importance import importance_names
from analyses.memory_pairs.coefficients import coefficient_names
from analyses.pages.explorer.contributions import contribution_names, contributions
from analyses.pages.explorer.importance import importances
from analyses.pages.explorer.memories import active_memories
from analyses.pages.explorer.projections import EXPLORED_STREAMS, projections
from analyses.pages.explorer.readout import readouts
from analyses.projection import stream_names
from hooked_vit import HookedViT, ViTActivationCache

__all__ = ["ExploredRun", "explored_run", "explorer_names", "run_data"]

_N_PREDICTED = 5


@dataclass(frozen=True)
class ExploredRun:
    """A run of the model on one picture.

    Attributes:
        logits: Of the picture.
        cache: Of the picture, with `explorer_names`.
    """

    logits: Float[Tensor, "n_classes"]
    cache: ViTActivationCache


@torch.no_grad()
def _refuse_differential(model: HookedViT) -> None:
    """Raise ValueError if attention is differential: the page shows shares of attention, which are never negative."""
    if model.cfg.differential is not None:
        raise ValueError(
            "the explorer shows shares of attention, and the patterns of differential attention are differences with "
            "negative entries: read 'hook_pattern_1', 'hook_pattern_2' and 'hook_lambda' from a cache"
        )


def explored_run(model: HookedViT, image: Float[Tensor, "1 channel height width"]) -> ExploredRun:
    """Run the model once, and keep what a page reads.

    Raises:
        ValueError: If attention is differential.
    """
    _refuse_differential(model)
    logits, cache = model.run_with_cache(image, names_filter=explorer_names(model))
    return ExploredRun(logits[0], cache)


def run_data(
    model: HookedViT, run: ExploredRun, shown: Sequence[int], leading: Sequence[int], remembered: Sequence[int]
) -> dict[str, Any]:
    """What the page's script reads of one picture, but for attention.

    Args:
        model: The model.
        run: Its run on the picture.
        shown: The classes with rank and logit, by index.
        leading: The first of them, with importance and attribution.
        remembered: The first of them, with the memories that add most to them.
    """
    best = run.logits.float().softmax(-1).topk(min(_N_PREDICTED, model.cfg.n_classes))
    return {
        "predicted": [list(pair) for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)],
        "projections": projections(model, run.cache, shown),
        "readout": readouts(model, run.cache, shown),
        "importance": importances(model, run.cache, leading),
        "contributions": contributions(model, run.cache, leading),
        "memories": active_memories(model, run.cache, remembered),
    }


def explorer_names(model: HookedViT) -> list[str]:
    """The hook points that all parts of a page read.

    >>> "blocks.7.attn.hook_pattern" in explorer_names(HookedViT.from_pretrained("emoji-vit"))
    True
    """
    cfg = model.cfg
    names = [name for stream in EXPLORED_STREAMS for name in stream_names(cfg, stream)]
    names += importance_names(cfg) + contribution_names(model)
    names += coefficient_names(cfg, "mlp", "post") + coefficient_names(cfg, "attn", "post")
    names += [f"blocks.{layer}.attn.hook_pattern" for layer in range(cfg.n_layers)]
    return list(dict.fromkeys(names))
