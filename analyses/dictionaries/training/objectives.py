"""What training minimises, for each kind of dictionary, and which latents were active."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.dictionaries.choosing import largest
from analyses.dictionaries.dictionary import DictionaryConfig
from analyses.dictionaries.training.sparse_products import (
    Active,
    LargestOfBatch,
    LargestOfRow,
    decode_active,
    encode_active,
)

__all__ = ["Objective", "Weights", "auxiliary_loss", "objective"]


@dataclass
class Weights:
    """A dictionary in training, one latent per row, and what it reads and writes already normalised."""

    enc: Float[Tensor, "d_dict d_in"]
    b_enc: Float[Tensor, "d_dict"]
    dec: Float[Tensor, "d_dict d_out"]
    b_dec: Float[Tensor, "d_out"]
    threshold: Float[Tensor, "d_dict"] | None = None


@dataclass(frozen=True)
class Objective:
    """The loss of a batch and its parts.

    Attributes:
        loss: What is minimised, without the auxiliary loss.
        unexplained: The mean squared error: the share of variance that is not explained, where the target has mean
            zero and mean square one.
        residual: Target minus reconstruction.
        was_active: Which latents were active in the batch.
        n_active: Active latents per activation.
        smallest: The smallest active value, for the kinds that choose over a batch.
    """

    loss: Float[Tensor, ""]
    unexplained: Float[Tensor, ""]
    residual: Float[Tensor, "activation d_out"]
    was_active: Bool[Tensor, "d_dict"]
    n_active: float
    smallest: float | None = None


def objective(
    config: DictionaryConfig,
    weights: Weights,
    x: Float[Tensor, "activation d_in"],
    y: Float[Tensor, "activation d_out"],
    penalty: float = 0.0,
    bandwidth: float = 0.1,
    guess: float = 0.0,
) -> Objective:
    """The loss of a batch.

    With ŷ the reconstruction, f the latents and mse the mean over activations and dimensions of `(y - ŷ)²`:

        relu            mse + penalty · mean Σ_j f_j |W_dec_j|                  (Bricken et al. 2023)
        jump_relu       mse + penalty · mean Σ_j [pre_j > threshold_j]          (Rajamanoharan et al. 2024, eq. 9)
        topk            mse                                                     (Gao et al. 2024)
        batch_topk      mse                                                     (Bussmann et al. 2024)
        matryoshka      the mean over prefixes of mse with the prefix alone     (Bussmann et al. 2025)

    Gradients at the thresholds of `jump_relu` are straight-through estimates with a rectangle of width `bandwidth`
    (their equations 11 and 12). A transcoder (Dunefsky et al. 2024) has another y than x.

    Args:
        config: The dictionary's.
        weights: Its weights.
        x: What it reads, normalised.
        y: What it reconstructs, normalised.
        penalty: The weight of the sparsity penalty of `relu` and `jump_relu`.
        bandwidth: The width of the rectangle.
        guess: A guess of the smallest active value, for the kinds that choose over a batch: it saves time, and changes
            nothing.
    """
    if config.kind in ("relu", "jump_relu"):
        return _dense(config, weights, x, y, penalty, bandwidth)
    assert config.k is not None
    choice = LargestOfRow(config.k) if config.kind == "topk" else LargestOfBatch(config.k, guess)
    active = encode_active(x, weights.enc, weights.b_enc, choice)
    losses, residual, done = [], y - weights.b_dec, 0
    for size in config.group_sizes or (config.d_dict,):
        residual = residual - decode_active(_between(active, done, size, config), weights.dec)
        losses.append(residual.square().mean())
        done = size
    was_active = torch.zeros(config.d_dict, dtype=torch.bool, device=x.device)
    was_active[active.columns] = True
    smallest = float(active.values.detach().min()) if len(active.values) and config.kind != "topk" else None
    per_row = len(active.values) / len(x)
    return Objective(torch.stack(losses).mean(), losses[-1], residual, was_active, per_row, smallest)


def _between(active: Active, first: int, end: int, config: DictionaryConfig) -> Active:
    return active if (first, end) == (0, config.d_dict) else active.between(first, end)


def _dense(
    config: DictionaryConfig, weights: Weights, x: Tensor, y: Tensor, penalty: float, bandwidth: float
) -> Objective:
    pre = torch.addmm(weights.b_enc, x, weights.enc.T)
    if config.kind == "relu":
        latents = pre.relu()
        sparsity = (latents * weights.dec.norm(dim=-1)).sum(dim=-1).mean()
    else:
        # not its positive part: that would put every negative one into the rectangle of a threshold near zero
        latents = _Jump.apply(pre, weights.threshold, bandwidth)
        sparsity = _Step.apply(pre, weights.threshold, bandwidth).sum(dim=-1).mean()
    residual = y - (latents @ weights.dec + weights.b_dec)
    unexplained = residual.square().mean()
    is_active = latents.detach() > 0
    n_active = float(is_active.sum()) / len(x)
    return Objective(unexplained + penalty * sparsity, unexplained, residual, is_active.any(dim=0), n_active)


class _Jump(torch.autograd.Function):
    """`z [z > threshold]`, for thresholds of zero or more."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return z * (z > threshold)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.bandwidth / 2
        of_threshold = -(threshold / ctx.bandwidth) * (gradients[0] * near).sum(dim=0)
        return gradients[0] * (z > threshold), of_threshold, None


class _Step(torch.autograd.Function):
    """`[z > threshold]`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.bandwidth / 2
        return None, -(gradients[0] * near).sum(dim=0) / ctx.bandwidth, None


def auxiliary_loss(
    weights: Weights,
    x: Float[Tensor, "activation d_in"],
    residual: Float[Tensor, "activation d_out"],
    dead: Bool[Tensor, "d_dict"],
    k: int,
) -> Float[Tensor, ""]:
    """How much of the residual dead latents fail to explain, which pulls them to where something is missing.

    `|e - ê|² / |e|²` with ê the reconstruction of the residual e by the k largest of the dead latents (Gao et al. 2024,
    appendix A.2).

    >>> weights = Weights(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2))
    >>> x = torch.tensor([[1.0, 3.0]])
    >>> float(auxiliary_loss(weights, x, x, torch.tensor([False, True]), k=1))
    0.10000000149011612
    """
    pre = torch.addmm(weights.b_enc[dead], x, weights.enc[dead].T)
    explained = largest(pre, min(k, pre.shape[1])) @ weights.dec[dead]
    target = residual.detach()
    return (target - explained).square().sum() / target.square().sum().clamp_min(torch.finfo(x.dtype).tiny)
