"""Which latents are active: the k largest, the largest of a batch, or those above a threshold."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["above_threshold", "largest", "largest_of_batch"]


def largest(pre: Float[Tensor, "*axes d_dict"], k: int) -> Float[Tensor, "*axes d_dict"]:
    """The k largest of each token if they are positive, zeros elsewhere (TopK, Gao et al. 2024, arXiv 2406.04093).

    >>> largest(torch.tensor([[3.0, 1.0, 2.0, -1.0], [-1.0, -2.0, 4.0, -3.0]]), k=2)
    tensor([[3., 0., 2., 0.],
            [0., 0., 4., 0.]])
    """
    values, index = pre.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(pre).scatter(-1, index, values.relu())


def largest_of_batch(pre: Float[Tensor, "activation d_dict"], k: int) -> Float[Tensor, "activation d_dict"]:
    """The `k · n_activations` largest of a batch if they are positive (BatchTopK, Bussmann et al. 2024, 2412.06410).

    A token may have more than k, or fewer.

    >>> largest_of_batch(torch.tensor([[3.0, 2.5, 2.0], [1.0, -1.0, 0.5]]), k=1)
    tensor([[3.0000, 2.5000, 0.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    positive = pre.relu().flatten()
    values, index = positive.topk(min(k * len(pre), positive.numel()), sorted=False)
    return torch.zeros_like(positive).scatter(0, index, values).reshape(pre.shape)


def above_threshold(
    pre: Float[Tensor, "*axes d_dict"], threshold: Float[Tensor, ""] | Float[Tensor, "d_dict"]
) -> Float[Tensor, "*axes d_dict"]:
    """What is above a threshold, one for all latents or one for each; zeros elsewhere.

    >>> above_threshold(torch.tensor([0.5, 0.2, -1.0]), torch.tensor(0.3))
    tensor([0.5000, 0.0000, 0.0000])
    """
    return pre.relu() * (pre > threshold)
