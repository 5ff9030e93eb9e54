"""Activations made of known sparse features: the truth against which training is tested."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PlantedFeatures", "mean_max_cosine"]


@dataclass(frozen=True)
class PlantedFeatures:
    """Activations that are sums of a few of many known directions.

    In each activation `n_active` features of `n_features` are active, all equally often, with sizes between 0.5 and
    1.5; there is Gaussian noise of size `noise` in every dimension.

    >>> planted = PlantedFeatures(width=16, n_features=32, n_active=2)
    >>> planted.draw(5, seed=1).shape, planted.directions.shape
    (torch.Size([5, 16]), torch.Size([32, 16]))
    """

    width: int
    n_features: int
    n_active: int
    noise: float = 0.0
    seed: int = 0

    @property
    def directions(self) -> Float[Tensor, "feature width"]:
        """The features, of unit length."""
        generator = torch.Generator().manual_seed(self.seed)
        return F.normalize(torch.randn(self.n_features, self.width, generator=generator), dim=-1)

    def sizes(self, n: int, seed: int) -> Float[Tensor, "activation feature"]:
        """How much of each feature is in each of `n` activations."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.rand(n, self.n_features, generator=generator).argsort(dim=-1)[:, : self.n_active]
        sizes = 0.5 + torch.rand(n, self.n_active, generator=generator)
        return torch.zeros(n, self.n_features).scatter(-1, order, sizes)

    def draw(self, n: int, seed: int) -> Float[Tensor, "activation width"]:
        """`n` activations."""
        noise = torch.randn(n, self.width, generator=torch.Generator().manual_seed(seed + 2**20))
        return self.sizes(n, seed) @ self.directions + self.noise * noise


def mean_max_cosine(true: Float[Tensor, "feature width"], found: Float[Tensor, "d_dict width"]) -> Float[Tensor, ""]:
    """The mean over true features of the largest cosine with any direction that was found: 1 if all are recovered.

    >>> float(mean_max_cosine(torch.eye(3), torch.eye(3)[[2, 0, 1]] * 5))
    1.0
    """
    return (F.normalize(true, dim=-1) @ F.normalize(found, dim=-1).T).amax(dim=-1).mean()
