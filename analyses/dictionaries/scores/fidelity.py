"""How well a dictionary reconstructs activations: explained variance, sparsity, dead latents, what is recovered."""

from typing import Any, TypeVar

from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["dead_latents", "explained_variance", "mean_l0", "recovered"]

_Number = TypeVar("_Number", bound=Any)


def explained_variance(
    activations: Float[Tensor, "*axes d_out"], reconstructions: Float[Tensor, "*axes d_out"]
) -> Float[Tensor, ""]:
    """The share of the activations' variance that reconstructions explain, over all tokens and dimensions together.

    `1 - sum |x - x_hat|^2 / sum |x - mean(x)|^2`: 1 for exact reconstructions, 0 for the mean of all tokens, negative
    for anything worse. Dimensions of large variance count for more; a mean of the dimensions' own shares would be
    another number.

    Raises:
        ValueError: If shapes differ, there is no token, or all tokens are the same.

    >>> x = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    >>> explained_variance(x, x), explained_variance(x, x.mean(dim=0).expand(2, 2))
    (tensor(1., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    if activations.shape != reconstructions.shape or activations.numel() == 0:
        raise ValueError(
            f"expected activations and reconstructions of one shape, at least one token, got "
            f"{tuple(activations.shape)} and {tuple(reconstructions.shape)}"
        )
    x, x_hat = (values.flatten(0, -2).double() for values in (activations, reconstructions))
    total = (x - x.mean(dim=0)).square().sum()
    if total == 0:
        raise ValueError("all tokens are the same, so there is no variance to explain: pass several different tokens")
    return 1 - (x - x_hat).square().sum() / total


def mean_l0(latents: Float[Tensor, "*axes d_dict"]) -> Float[Tensor, ""]:
    """The mean number of latents of a token that are not zero.

    >>> mean_l0(torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 3.0]]))
    tensor(1.5000, dtype=torch.float64)
    """
    return (latents != 0).sum(dim=-1).double().mean()


def dead_latents(latents: Float[Tensor, "*axes d_dict"]) -> Bool[Tensor, "d_dict"]:
    """True for latents that are zero at every token.

    >>> dead_latents(torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 3.0]]))
    tensor([ True, False, False])
    """
    return (latents == 0).flatten(0, -2).all(dim=0)


def recovered(plain: _Number, spliced: _Number, ablated: _Number) -> _Number:
    """The share of a loss (or accuracy) that a splice keeps: `(ablated - spliced) / (ablated - plain)`.

    1 where the spliced model is as good as the plain one, 0 where it is as bad as with the activation ablated; it may
    lie outside. It says nothing without the ablation: zeros usually damage a model more than means do, so the same
    dictionary recovers more of it.

    Args:
        plain: The metric of the model as it is.
        spliced: With the reconstruction instead of the activation.
        ablated: With zeros, or with the mean activation, instead of it.

    >>> recovered(plain=1.0, spliced=1.5, ablated=3.0)
    0.75
    """
    return (ablated - spliced) / (ablated - plain)
