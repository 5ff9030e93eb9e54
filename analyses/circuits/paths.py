"""The points between two embeddings at which edge attribution takes gradients."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["STEP_RULES", "StepRule", "points_of"]

StepRule = Literal["right", "left", "midpoint"]
STEP_RULES: tuple[StepRule, ...] = get_args(StepRule)

_OFFSET = {"right": 1.0, "left": 0.0, "midpoint": 0.5}


def points_of(
    method: str,
    clean: Float[Tensor, "batch token d_model"],
    corrupt: Float[Tensor, "batch token d_model"],
    steps: int,
    rule: StepRule,
    gradients_at: Callable[[Tensor], Any],
    away_from_corrupt: Callable[[Tensor], Tensor],
) -> Iterator[Any]:
    """What `gradients_at` returns at each point of the path between two embeddings.

    `eap-ig`: corrupt + α (clean - corrupt) with α = k / steps.

    `eap-gp` (Zhang et al. 2025, equation 8): from the clean embedding, in steps of length 1 down the gradient of the
    squared distance between the logits and the corrupt logits, `away_from_corrupt`. Gradients are taken after each
    step.
    """
    if method == "eap-ig":
        for step in range(steps):
            yield gradients_at(corrupt + (step + _OFFSET[rule]) / steps * (clean - corrupt))
        return
    point = clean
    for _ in range(steps):
        uphill = away_from_corrupt(point)
        point = point - uphill / _norm(uphill).clamp_min(torch.finfo(point.dtype).tiny)
        yield gradients_at(point)


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)[:, None, None]
