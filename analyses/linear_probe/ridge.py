"""Linear probes: ridge regression from the stream to the classes, for every layer and token position at once."""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["RidgeProbe", "fit_ridge_probe"]

# How many numbers of features are centred and squared at a time.
_CHUNK = 2**25


@dataclass(frozen=True)
class RidgeProbe:
    """Probes that are alike in all but where they read: `x W + b`, [layer position] of them, for instance.

    Attributes:
        weight: A class a column.
        bias: One number a class.
        alpha: Weight of the penalty `alpha |W|²`.
        n_samples: How many samples each was fitted to.
    """

    weight: Float[Tensor, "*probes d_model n_classes"]
    bias: Float[Tensor, "*probes n_classes"]
    alpha: float
    n_samples: int

    def class_logits(
        self, features: Float[Tensor, "*probes sample d_model"]
    ) -> Float[Tensor, "*probes sample n_classes"]:
        """What each probe says of its samples: near 1 for their class and near -1 for others, if it works."""
        return features @ self.weight + self.bias[..., None, :]

    def __getitem__(self, at: int | slice | tuple[int | slice, ...]) -> "RidgeProbe":
        """Some of the probes: an index of their axes."""
        return RidgeProbe(self.weight[at], self.bias[at], self.alpha, self.n_samples)

    @property
    def n_bytes(self) -> int:
        """What the probes take to keep."""
        return sum(one.numel() * one.element_size() for one in (self.weight, self.bias))


@torch.no_grad()
def fit_ridge_probe(
    features: Float[Tensor, "*probes sample d_model"],
    labels: Int[Tensor, "sample"],
    n_classes: int,
    alpha: float | int = 1.0,
) -> RidgeProbe:
    """Ridge regression on targets of 1 for a sample's class and -1 for all others (paper, section 4), for each probe.

    Minimises `|Y - X W - b|² + alpha |W|²`, which is what scikit-learn's `Ridge(alpha)` minimises; b is not penalised.
    With X centred, `W = (XᵀX + alpha I)⁻¹ XᵀY`, and XᵀY is twice the sum of the samples of each class. All probes are
    solved together, in double precision.

    Args:
        features: Samples of each probe; the same samples for all of them.
        labels: The class of each sample. Classes without a sample are never predicted.
        n_classes: How many classes there are.
        alpha: Weight of the penalty, above 0; the released code has 1.

    Raises:
        ValueError: If labels do not fit, or alpha is not above 0.

    >>> features = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> probe = fit_ridge_probe(features, torch.tensor([0, 0, 1, 1]), n_classes=2)
    >>> probe.class_logits(features).argmax(-1)
    tensor([0, 0, 1, 1])
    """
    *probes, n_samples, d_model = features.shape
    if labels.shape != (n_samples,):
        raise ValueError(f"labels must be a class for each of {n_samples} samples, got shape {tuple(labels.shape)}")
    if n_samples == 0 or labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels must be from 0 to {n_classes - 1}, of one sample at least, got {labels.tolist()}")
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}: with fewer samples than width, only then is W unique")
    labels = labels.to(features.device)
    flat = features.reshape(prod(probes), n_samples, d_model)
    solved = [_solve(part, labels, n_classes, float(alpha)) for part in flat.split(max(1, _CHUNK // flat[0].numel()))]
    weight, bias = (torch.cat(parts).to(features.dtype) for parts in zip(*solved, strict=True))
    return RidgeProbe(
        weight.reshape(*probes, d_model, n_classes), bias.reshape(*probes, n_classes), float(alpha), n_samples
    )


def _solve(
    features: Float[Tensor, "probe sample d_model"], labels: Int[Tensor, "sample"], n_classes: int, alpha: float
) -> tuple[Float[Tensor, "probe d_model n_classes"], Float[Tensor, "probe n_classes"]]:
    x = features.double()
    mean = x.mean(dim=1, keepdim=True)
    x = x - mean
    gram = x.transpose(1, 2) @ x
    gram.diagonal(dim1=1, dim2=2).add_(alpha)
    of_classes = x.new_zeros(len(x), n_classes, x.shape[2]).index_add_(1, labels, x)
    weight = torch.cholesky_solve(2 * of_classes.transpose(1, 2), torch.linalg.cholesky(gram))
    target = 2 * labels.bincount(minlength=n_classes).double() / len(labels) - 1
    return weight, target - (mean @ weight)[:, 0]
