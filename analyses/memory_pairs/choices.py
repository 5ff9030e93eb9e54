"""Which memories an image's class depends on, by their value vectors or by what they did; and fair ones to compare."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["ChoiceDraws", "contributing_memories", "norm_matched_memories"]

# Controls are drawn from this many memories of the next smaller and next larger norms.
_NEIGHBOURS = 16


@dataclass(frozen=True)
class ChoiceDraws:
    """What is drawn at random for some images, from their places in the dataset alone: the same in any batch.

    Attributes:
        other: Another class than the image's own.
        priority: For each memory of each block, from 0 to 1.
    """

    other: Int[Tensor, "batch"]
    priority: Float[Tensor, "batch layer memory"]

    @classmethod
    def of_images(
        cls,
        index: Int[Tensor, "batch"],
        labels: Int[Tensor, "batch"],
        n_classes: int,
        n_layers: int,
        n_memories: int,
        seed: int,
    ) -> "ChoiceDraws":
        """Draw for the images at these places.

        >>> draws = ChoiceDraws.of_images(torch.tensor([7, 8]), torch.tensor([0, 1]), 2, 3, 5, seed=0)
        >>> draws.other.tolist(), draws.priority.shape
        ([1, 0], torch.Size([2, 3, 5]))
        """
        shifts, priorities = [], []
        for place in index.tolist():
            generator = np.random.default_rng([seed, place])
            shifts.append(int(generator.integers(1, max(2, n_classes))))
            priorities.append(generator.random((n_layers, n_memories), dtype=np.float32))
        shift = torch.tensor(shifts, device=labels.device)
        return cls((labels + shift) % n_classes, torch.from_numpy(np.stack(priorities)).to(labels.device))


def contributing_memories(
    coefficients: Float[Tensor, "batch token memory"], class_logits: Float[Tensor, "batch memory"], k: int
) -> Int[Tensor, "batch k"]:
    """The k memories that write the most of a class, over an image's tokens: `sum_t m_i(t) * v_i · E_c`, largest first.

    Args:
        coefficients: `"post"` coefficients.
        class_logits: Of the image's class in every value vector.
        k: How many.

    >>> contributing_memories(torch.tensor([[[1.0, 2.0, -3.0], [1.0, 0.0, 0.0]]]), torch.tensor([[1.0, 0.5, -1.0]]), 2)
    tensor([[2, 0]])
    """
    return (coefficients.sum(dim=1) * class_logits).topk(k, dim=-1).indices


def norm_matched_memories(
    chosen: Int[Tensor, "batch k"], norms: Float[Tensor, "memory"], priority: Float[Tensor, "batch memory"]
) -> Int[Tensor, "batch k"]:
    """For each chosen memory, one at random whose value vector is about as long, and which is not chosen itself.

    Of the memories that are at most 16 places away in the order of norms and not taken yet, the one of the highest
    priority; where there is none, the nearest.

    Args:
        chosen: What is to be matched, different ones for each image.
        norms: Of all value vectors.
        priority: Random numbers from 0 to 1.

    Raises:
        ValueError: If so many are chosen that there are not as many others.

    >>> norms = torch.arange(100.0)
    >>> matched = norm_matched_memories(torch.tensor([[50, 51]]), norms, torch.rand(1, 100))
    >>> bool(((matched - 50).abs() <= 17).all() and not torch.isin(matched, torch.tensor([50, 51])).any())
    True
    """
    n_memories, k = len(norms), chosen.shape[1]
    if 2 * k > n_memories:
        raise ValueError(f"expected at most half of the {n_memories} memories to be chosen, got k = {k}")
    place = torch.empty_like(norms, dtype=torch.long)
    place[norms.argsort(stable=True)] = torch.arange(n_memories, device=norms.device)
    free: Bool[Tensor, "batch memory"] = torch.ones_like(priority, dtype=torch.bool).scatter_(1, chosen, False)
    matched = []
    for slot in chosen.unbind(dim=1):
        distance = (place - place[slot][:, None]).abs()
        score = torch.where(distance <= _NEIGHBOURS, priority, -distance.to(priority.dtype))
        matched.append(score.masked_fill(~free, -torch.inf).argmax(dim=-1))
        free = free.scatter(1, matched[-1][:, None], False)
    return torch.stack(matched, dim=1)
