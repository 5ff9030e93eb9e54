"""The choice of memories to edit: those that contribute most to a class, and random ones of matched norms."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["ChoiceDraws", "contributing_memories", "norm_matched_memories"]

_NEIGHBOURS = 16  # controls are drawn from this many memories of the next smaller and of the next larger norms


@dataclass(frozen=True)
class ChoiceDraws:
    """Random draws for some images, seeded by their indices in the dataset, hence the same in any batch.

    Attributes:
        other: A class other than the image's own.
        priority: A random number from 0 to 1 for each memory of each block.
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
        """Draw for the images with these indices.

        >>> draws = ChoiceDraws.of_images(torch.tensor([7, 8]), torch.tensor([0, 1]), 2, 3, 5, seed=0)
        >>> draws.other.tolist(), draws.priority.shape
        ([1, 0], torch.Size([2, 3, 5]))
        """
        shifts, priorities = [], []
        for image in index.tolist():
            generator = np.random.default_rng([seed, image])
            shifts.append(int(generator.integers(1, max(2, n_classes))))
            priorities.append(generator.random((n_layers, n_memories), dtype=np.float32))
        shift = torch.tensor(shifts, device=labels.device)
        return cls((labels + shift) % n_classes, torch.from_numpy(np.stack(priorities)).to(labels.device))


def contributing_memories(
    coefficients: Float[Tensor, "batch token memory"], class_logits: Float[Tensor, "batch memory"], k: int
) -> Int[Tensor, "batch k"]:
    """The k memories that contribute most to a class over an image's tokens, `sum_t m_i(t) * v_i · E_c`; largest first.

    Args:
        coefficients: `"post"` coefficients.
        class_logits: The logit of the image's class in every value vector.
        k: Number of memories.

    >>> contributing_memories(torch.tensor([[[1.0, 2.0, -3.0], [1.0, 0.0, 0.0]]]), torch.tensor([[1.0, 0.5, -1.0]]), 2)
    tensor([[2, 0]])
    """
    return (coefficients.sum(dim=1) * class_logits).topk(k, dim=-1).indices


def norm_matched_memories(
    chosen: Int[Tensor, "batch k"], norms: Float[Tensor, "memory"], priority: Float[Tensor, "batch memory"]
) -> Int[Tensor, "batch k"]:
    """For each chosen memory, a random one that is not chosen and whose value vector has about the same norm.

    Among the memories at most 16 ranks away in the order of norms that are still free, the one with the highest
    priority; if there is none, the nearest free memory.

    Args:
        chosen: The memories to match, distinct within each image.
        norms: Norms of all value vectors.
        priority: Random numbers from 0 to 1.

    Raises:
        ValueError: If more than half of the memories are chosen.

    >>> norms = torch.arange(100.0)
    >>> matched = norm_matched_memories(torch.tensor([[50, 51]]), norms, torch.rand(1, 100))
    >>> bool(((matched - 50).abs() <= 17).all() and not torch.isin(matched, torch.tensor([50, 51])).any())
    True
    """
    n_memories, k = len(norms), chosen.shape[1]
    if 2 * k > n_memories:
        raise ValueError(f"expected at most half of the {n_memories} memories to be chosen, got k = {k}")
    rank = torch.empty_like(norms, dtype=torch.long)
    rank[norms.argsort(stable=True)] = torch.arange(n_memories, device=norms.device)
    free: Bool[Tensor, "batch memory"] = torch.ones_like(priority, dtype=torch.bool).scatter_(1, chosen, False)
    matched = []
    for slot in chosen.unbind(dim=1):
        distance = (rank - rank[slot][:, None]).abs()
        score = torch.where(distance <= _NEIGHBOURS, priority, -distance.to(priority.dtype))
        matched.append(score.masked_fill(~free, -torch.inf).argmax(dim=-1))
        free = free.scatter(1, matched[-1][:, None], False)
    return torch.stack(matched, dim=1)
