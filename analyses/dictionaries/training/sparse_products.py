"""Products with few active latents: the encoder is dense, what follows costs only what is active."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Active", "LargestOfBatch", "LargestOfRow", "decode_active", "encode_active"]

_CHUNK = 2**20  # pre-activations that are held at once


@dataclass(frozen=True)
class Active:
    """The active latents of a batch of activations, row by row.

    Attributes:
        values: Their values, which gradients flow through.
        rows: The activation of each, in order.
        columns: The latent of each.
        n_rows: Number of activations.
    """

    values: Float[Tensor, "active"]
    rows: Int[Tensor, "active"]
    columns: Int[Tensor, "active"]
    n_rows: int

    def between(self, first: int, end: int) -> "Active":
        """Those among the latents from `first` to before `end`."""
        kept = (self.columns >= first) & (self.columns < end)
        return Active(self.values[kept], self.rows[kept], self.columns[kept], self.n_rows)


@dataclass(frozen=True)
class LargestOfRow:
    """The k largest latents of each activation, if they are positive."""

    k: int

    def __call__(self, pre: Tensor) -> Tensor:
        """The flat indices of the active ones, row by row."""
        values, columns = _largest_of_rows(pre, self.k)
        index = columns + torch.arange(len(pre), device=pre.device)[:, None] * pre.shape[1]
        return index[values > 0]

    def of_batch(self, values: Tensor, n_rows: int) -> Tensor | None:
        """Which of all rows' are kept; `None` for all."""
        return None


def _largest_of_rows(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `topk`, in two steps where there are many: a row's k largest are in the k groups with the largest maxima."""
    n_latents = pre.shape[1]
    size = 16 if n_latents >= 256 * k else 8 if n_latents >= 48 * k else 1
    if size == 1 or n_latents % size:
        return pre.topk(k, dim=-1, sorted=False)
    groups = pre.unflatten(1, (size, -1))  # every so-many-th entry is a group: maxima of whole rows are fast
    which = groups.amax(dim=1).topk(k, dim=-1, sorted=False).indices
    members = groups.gather(2, which[:, None, :].expand(-1, size, -1)).flatten(1)
    values, places = members.topk(k, dim=-1, sorted=False)
    return values, which.gather(1, places % k) + (places // k) * groups.shape[2]


@dataclass(frozen=True)
class LargestOfBatch:
    """The `k · n_rows` largest latents of a batch, if they are positive.

    Only what is above a guess is looked at, which saves sorting all pre-activations; where too little is above it, the
    guess becomes zero, so the result never depends on it.
    """

    k: int
    guess: float = 0.0

    def __call__(self, pre: Tensor) -> Tensor:
        """The flat indices of the candidates, row by row."""
        return _places(pre > self.guess)

    def of_batch(self, values: Tensor, n_rows: int) -> Tensor | None:
        """Which of the candidates are kept, in order; `None` for all."""
        if len(values) <= self.k * n_rows:
            return None
        return values.topk(self.k * n_rows, sorted=False).indices.sort().values


def _places(mask: Tensor) -> Tensor:
    """Where a mask is True, flat; faster than `nonzero` where little of it is, by looking at eight entries at once."""
    flat = mask.flatten()
    if flat.numel() % 8:
        return flat.nonzero()[:, 0]
    eights = flat.view(torch.int64).nonzero()[:, 0]
    which, within = flat.view(-1, 8)[eights].nonzero(as_tuple=True)
    return eights[which] * 8 + within


def encode_active(
    x: Float[Tensor, "activation d_in"],
    weight: Float[Tensor, "d_dict d_in"],
    bias: Float[Tensor, "d_dict"],
    choice: LargestOfRow | LargestOfBatch,
) -> Active:
    """The latents that are active; gradients reach weight and bias through these alone.

    Args:
        x: Normalised activations, which get no gradient.
        weight: The encoder, one latent per row.
        bias: Its bias.
        choice: Which are active.

    >>> weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> active = encode_active(torch.eye(2), weight, torch.zeros(2), LargestOfRow(1))
    >>> active.values, active.columns
    (tensor([1., 2.]), tensor([0, 1]))
    """
    values, index = _Encode.apply(weight, bias, x, choice)  # pyright: ignore[reportGeneralTypeIssues]
    return Active(values, index // len(weight), index % len(weight), len(x))


def decode_active(active: Active, weight: Float[Tensor, "d_dict d_out"]) -> Float[Tensor, "activation d_out"]:
    """The sum of each activation's active rows of the decoder, times their values."""
    entries = (active.values, weight, active.rows, active.columns, active.n_rows)
    return _Decode.apply(*entries)  # pyright: ignore[reportReturnType]


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, x: Tensor, choice: LargestOfRow | LargestOfBatch) -> Any:
        values, index = _candidates(weight, bias, x, choice)
        if isinstance(choice, LargestOfBatch) and choice.guess > 0 and len(values) < choice.k * len(x):
            values, index = _candidates(weight, bias, x, LargestOfBatch(choice.k))
        kept = choice.of_batch(values, len(x))
        if kept is not None:
            values, index = values[kept], index[kept]
        ctx.save_for_backward(x, index)
        ctx.n_latents = len(weight)
        ctx.mark_non_differentiable(index)
        return values, index

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, index = ctx.saved_tensors
        rows, columns = index // ctx.n_latents, index % ctx.n_latents
        bias = torch.zeros(ctx.n_latents, dtype=x.dtype, device=x.device).index_add_(0, columns, gradients[0])
        return _transposed_product(gradients[0], rows, columns, ctx.n_latents, x), bias, None, None


def _candidates(weight: Tensor, bias: Tensor, x: Tensor, choice: Any) -> tuple[Tensor, Tensor]:
    """Values and flat indices; a few rows at a time, so that most of the pre-activations never leave the cache."""
    n_latents, n_rows = len(weight), max(1, _CHUNK // len(weight))
    held = x.new_empty(min(n_rows, len(x)), n_latents)
    values: list[Tensor] = []
    index: list[Tensor] = []
    for start in range(0, len(x), n_rows):
        part = x[start : start + n_rows]
        pre = torch.addmm(bias, part, weight.T, out=held[: len(part)])
        chosen = choice(pre)
        values.append(pre.flatten()[chosen])
        index.append(chosen + start * n_latents)
    return torch.cat(values), torch.cat(index)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, rows: Tensor, columns: Tensor, n_rows: int) -> Tensor:
        ctx.save_for_backward(values, weight, rows, columns)
        return _product(values, rows, columns, n_rows, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        values, weight, rows, columns = ctx.saved_tensors
        upstream = gradients[0].contiguous()
        with torch.enable_grad():
            # PyTorch's own kernel: gathering the rows of both factors would take ten times as long
            leaf = values.detach().requires_grad_()
            (of_values,) = torch.autograd.grad(_product(leaf, rows, columns, len(upstream), weight), leaf, upstream)
        return of_values, _transposed_product(values, rows, columns, len(weight), upstream), None, None, None


def _product(values: Tensor, rows: Tensor, columns: Tensor, n_rows: int, dense: Tensor) -> Tensor:
    """A sparse matrix, whose entries are in the order of its rows, times a dense one."""
    starts = torch.searchsorted(rows, torch.arange(n_rows, device=rows.device))
    return F.embedding_bag(columns, dense.detach(), starts, mode="sum", per_sample_weights=values)


def _transposed_product(values: Tensor, rows: Tensor, columns: Tensor, n_columns: int, dense: Tensor) -> Tensor:
    """The transpose of a sparse matrix times a dense one."""
    order = columns.argsort(stable=True)
    return _product(values[order], columns[order], rows[order], n_columns, dense)
