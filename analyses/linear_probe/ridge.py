"""Linear probes: ridge regression from the stream to the classes, for every layer and token position at once."""

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooked_vit.class_space import describe_indices, require_several_classes

__all__ = ["RidgeProbe", "fit_ridge_probe"]

CHUNK_ELEMENTS = 2**25
"""How many numbers of the features are centred and multiplied at a time."""


@dataclass(frozen=True)
class RidgeProbe:
    """Probes `x W + b` that differ only in the features they read, for instance one for each [layer position].

    Attributes:
        weight: One column per class.
        bias: One number per class.
        alpha: Weight of the penalty `alpha |W|²`.
        n_samples: How many samples each probe was fitted to.
    """

    weight: Float[Tensor, "*probes d_model n_classes"]
    bias: Float[Tensor, "*probes n_classes"]
    alpha: float
    n_samples: int

    def class_logits(
        self, features: Float[Tensor, "*probes sample d_model"]
    ) -> Float[Tensor, "*probes sample n_classes"]:
        """Each probe's output for its samples: near 1 for their class and near -1 for the others, if it works."""
        return features @ self.weight + self.bias[..., None, :]

    def __getitem__(self, at: int | slice | tuple[int | slice, ...]) -> "RidgeProbe":
        """Some of the probes, by an index into their axes."""
        return RidgeProbe(self.weight[at], self.bias[at], self.alpha, self.n_samples)

    @property
    def n_bytes(self) -> int:
        """Bytes needed to store the probes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.weight, self.bias))


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
        alpha: Weight of the penalty, above 0; the published code uses 1.

    Raises:
        ValueError: If labels do not fit, or alpha is not above 0.

    >>> features = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> probe = fit_ridge_probe(features, torch.tensor([0, 0, 1, 1]), n_classes=2)
    >>> probe.class_logits(features).argmax(-1)
    tensor([0, 0, 1, 1])
    """
    require_several_classes(n_classes, "a probe of classes")
    *probes, n_samples, d_model = features.shape
    if labels.shape != (n_samples,):
        raise ValueError(f"labels must be a class for each of {n_samples} samples, got shape {tuple(labels.shape)}")
    if n_samples == 0 or labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(
            f"labels must be from 0 to {n_classes - 1}, of one sample at least, got {describe_indices(labels)}"
        )
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}: with fewer samples than width, only then is W unique")
    labels = labels.to(features.device)
    flat = features.reshape(prod(probes), n_samples, d_model)
    chunks = flat.split(max(1, CHUNK_ELEMENTS // flat[0].numel()))
    solved = [_solve(chunk, labels, n_classes, float(alpha)) for chunk in chunks]
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
    class_sums = x.new_zeros(len(x), n_classes, x.shape[2]).index_add_(1, labels, x)
    weight = torch.cholesky_solve(2 * class_sums.transpose(1, 2), torch.linalg.cholesky(gram))
    target = 2 * labels.bincount(minlength=n_classes).double() / len(labels) - 1
    return weight, target - (mean @ weight)[:, 0]
