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
) -> Iterator[Any]:
    """What `gradients_at` returns at each point of the path; it has an `embedding`, the metric's gradient there.

    `eap-ig`: corrupt + α (clean - corrupt) with α = k / steps.

    `eap-gp`: from the clean embedding, in each step along the difference between the metric's gradient at the corrupt
    embedding and that at the point, with signs chosen so that it leads towards the corrupt embedding; each step is
    1 / steps of the distance between the two embeddings long. Gradients are taken after each step.
    """
    if method == "eap-ig":
        for step in range(steps):
            yield gradients_at(corrupt + (step + _OFFSET[rule]) / steps * (clean - corrupt))
        return
    there = gradients_at(corrupt).embedding
    point, here = clean, gradients_at(clean).embedding
    length = _norm(corrupt - clean) / steps
    for _ in range(steps):
        direction = there - here
        towards = (direction * (corrupt - clean)).flatten(1).sum(dim=1).sign()[:, None, None]
        direction = torch.where(towards < 0, -direction, direction)
        point = point + length * direction / _norm(direction).clamp_min(torch.finfo(point.dtype).tiny)
        found = gradients_at(point)
        here = found.embedding
        yield found


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)[:, None, None]
