"""Fitting a tuned lens: ridge regression onto the last residual stream, from sums that are streamed over pictures."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.data.dataset import LabelledImages
from analyses.data.reading import ItemReader
from analyses.progress import progress_bar
from analyses.projection import stream_names
from analyses.sweep.describe import describe, hash_tensors
from analyses.tuned_lens.lens import TunedLens, n_reads
from hooked_vit import HookedViT, HookedViTConfig

__all__ = ["FitTokens", "fit_tuned_lens"]

FitTokens = Literal["all", "read"]
_HELD_OUT = 5  # one picture of so many tells how well the maps do on other pictures
_TOKENS_PER_DIMENSION = 5


@torch.no_grad()
def fit_tuned_lens(
    model: HookedViT,
    dataset: LabelledImages | Sequence[Any],
    *,
    tokens: FitTokens = "all",
    alpha: float = 1e-3,
    n_images: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool | None = None,
) -> TunedLens:
    """Fit a tuned lens to pictures; their labels, if they have any, play no part.

    For the stream h at a block and the last residual stream y of the same token, A and b minimise

        mean |y - h - h A - b|² + alpha · v · |A|²,

    v the mean variance of the entries of h. The penalty pulls the map towards the identity, which is direct projection.

    Belrose et al. (2023) train A and b by gradient descent on the divergence between the lens's distribution over
    classes and the model's own. Least squares onto the stream itself is the closed form of the same question (Din et
    al. 2023, "Jump to conclusions"): it has one exact solution, which depends on neither a schedule nor the order of
    the pictures, it needs no classes, and one pass with sums of the size of the maps is enough, however many pictures
    there are. It weighs all directions of the stream alike, where the divergence weighs those that the head reads.

    The record's `variance_explained` is the share of the variance of y that the maps explain in every fifth picture, if
    they are fitted to the others: below 0, they do worse there than the mean. The lens itself is fitted to all.

    Args:
        model: The model.
        dataset: Pictures; or items whose first entry is one, as in any dataset with labels. Take other pictures than
            those to look at.
        tokens: `"all"`, or `"read"` for those that the head reads, such as CLS alone: for `analyses.early_exit`.
        alpha: The penalty, as a share of the mean variance; above 0.
        n_images: Only so many pictures, drawn at random by the seed; all by default.
        seed: Which pictures are drawn.
        batch_size: Pictures per forward pass.
        progress: Whether to show a progress bar; by default on a terminal.

    Raises:
        ValueError: If there are fewer than 2 pictures, or no more tokens than `d_model`; a picture cannot be read, or
            an argument is invalid.

    Warns:
        UserWarning: If there are fewer tokens than five times `d_model`.

    >>> from analyses.data import EmojiScenes
    >>> lens = fit_tuned_lens(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(10, seed=1))
    >>> lens.record["n_images"], len(lens.record["variance_explained"])
    (10, 8)
    """
    if tokens not in get_args(FitTokens):
        raise ValueError(f"tokens is 'all' or 'read', got {tokens!r}")
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}: a share of the mean variance, such as 1e-3")
    if batch_size < 1 or not 2 <= (len(dataset) if n_images is None else n_images) <= len(dataset):
        raise ValueError(
            f"expected a batch_size of at least 1 and n_images from 2, to fit to and to hold out, to the "
            f"{len(dataset)} of the dataset, got {batch_size} and {n_images}"
        )
    cfg, read = model.cfg, slice(None) if tokens == "all" else model.cfg.read_tokens
    order = np.random.default_rng(seed).permutation(len(dataset))[:n_images] if n_images else np.arange(len(dataset))
    names = _names(cfg)
    fitted, held_out = (_Sums.empty(cfg.n_layers * n_reads(cfg), cfg.d_model, cfg.device) for _ in range(2))
    reader = ItemReader(_Unlabelled(dataset), replace(cfg, n_classes=1), model.data_config, skip=False)
    with progress_bar(len(order), show=progress, what="pictures") as advance:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size].tolist()
            images = reader.__getitems__(chosen).images
            assert images is not None
            _, cache = model.run_with_cache(images.to(model.embed.weight), names_filter=names)
            held = torch.arange(start, start + len(chosen), device=cfg.device) % _HELD_OUT == 1
            for part, sums in ((~held, fitted), (held, held_out)):
                streams = [cache[name][part][:, read].reshape(-1, cfg.d_model) for name in names]
                sums.add(streams[:-1], streams[-1])
            advance(len(chosen))
    explained = held_out.explained(*fitted.solve(alpha))
    fitted.merge(held_out)
    _check_enough(fitted.n, len(order), cfg.d_model)
    weight, bias = fitted.solve(alpha)
    shape = (cfg.n_layers, n_reads(cfg), cfg.d_model)
    record = {
        "method": "ridge",
        "tokens": tokens,
        "alpha": alpha,
        "seed": seed,
        "n_images": len(order),
        "n_tokens": fitted.n,
        "variance_explained": explained.reshape(shape[:2]).tolist(),
        "model": {"weights_sha256": hash_tensors(model.state_dict()), "n_layers": shape[0], "d_model": shape[2]},
        "data": describe(dataset),
    }
    return TunedLens(weight.to(cfg.dtype).reshape(*shape, shape[2]), bias.to(cfg.dtype).reshape(shape), record)


def _check_enough(n_tokens: int, n_pictures: int, d_model: int) -> None:
    if n_tokens <= d_model:
        raise ValueError(
            f"{n_pictures} pictures have {n_tokens} tokens to fit to, too few for maps of width {d_model}: take "
            f"more than {d_model * n_pictures // n_tokens} pictures"
        )
    if n_tokens < _TOKENS_PER_DIMENSION * d_model:
        warnings.warn(
            f"{n_pictures} pictures have {n_tokens} tokens, few for maps of width {d_model}, which may do badly on "
            "others (see the record's variance_explained): take at least "
            f"{_TOKENS_PER_DIMENSION * d_model} tokens, from "
            f"{-(-_TOKENS_PER_DIMENSION * d_model * n_pictures // n_tokens)} pictures",
            stacklevel=3,
        )


def _names(cfg: HookedViTConfig) -> list[str]:
    """The streams that are mapped, in the order of the lens, and last the one that they are mapped to."""
    streams = [stream_names(cfg, "resid_pre")]
    if n_reads(cfg) == 2:
        streams.append(stream_names(cfg, "resid_mid"))
    return [name for block in zip(*streams, strict=True) for name in block] + stream_names(cfg, "resid_post", [-1])


class _Unlabelled:
    """The pictures of a dataset, all with label 0, which is never read."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        item = self.dataset[index]
        return (item[0] if isinstance(item, tuple | list) else item), 0


@dataclass
class _Sums:
    """First and second moments of streams x and of what they are to change by, d = y - x, in double precision."""

    n: int
    x: Float[Tensor, "stream d_model"]
    d: Float[Tensor, "stream d_model"]
    xx: Float[Tensor, "stream d_model d_model"]
    xd: Float[Tensor, "stream d_model d_model"]
    dd: Float[Tensor, "stream"]
    y: Float[Tensor, "d_model"]
    yy: Float[Tensor, "d_model"]

    @classmethod
    def empty(cls, n_streams: int, d_model: int, device: torch.device) -> "_Sums":
        # not `device` where it has no double precision
        device = torch.device("cpu") if device.type == "mps" else device
        shapes = ((n_streams, d_model),) * 2 + ((n_streams, d_model, d_model),) * 2
        shapes += ((n_streams,), (d_model,), (d_model,))
        return cls(0, *(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def add(self, streams: Sequence[Tensor], last: Tensor) -> None:
        y = last.to(self.y)
        self.n += len(y)
        self.y += y.sum(dim=0)
        self.yy += y.square().sum(dim=0)
        for index, stream in enumerate(streams):
            x = stream.to(self.y)
            d = y - x
            self.x[index] += x.sum(dim=0)
            self.d[index] += d.sum(dim=0)
            self.xx[index] += x.T @ x
            self.xd[index] += x.T @ d
            self.dd[index] += d.square().sum()

    def merge(self, other: "_Sums") -> None:
        self.n += other.n
        for name in ("x", "d", "xx", "xd", "dd", "y", "yy"):
            getattr(self, name).add_(getattr(other, name))

    def _moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean_x, mean_d = self.x / self.n, self.d / self.n
        cov_xx = self.xx / self.n - mean_x[:, :, None] * mean_x[:, None]
        cov_xd = self.xd / self.n - mean_x[:, :, None] * mean_d[:, None]
        return mean_x, mean_d, cov_xx, cov_xd

    def solve(self, alpha: float) -> tuple[Tensor, Tensor]:
        """A and b."""
        mean_x, mean_d, cov_xx, cov_xd = self._moments()
        variance = cov_xx.diagonal(dim1=1, dim2=2).mean(dim=1)
        # a stream that is the same for all pictures, such as CLS before the first block, has a variance of rounding
        rounding = 1e-10 * self.xx.diagonal(dim1=1, dim2=2).mean(dim=1) / self.n
        penalty = torch.maximum(alpha * variance, rounding.clamp_min(torch.finfo(torch.float64).tiny))
        penalised = cov_xx + penalty[:, None, None] * torch.eye(cov_xx.shape[1]).to(cov_xx)
        weight = torch.linalg.solve(penalised, cov_xd)
        return weight, mean_d - (mean_x[:, None] @ weight)[:, 0]

    def explained(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The share of the variance of y, in these pictures, that maps fitted to others explain: [stream]."""
        mean_x, mean_d, cov_xx, cov_xd = self._moments()
        offset = mean_d - (mean_x[:, None] @ weight)[:, 0] - bias
        var_d = self.dd / self.n - mean_d.square().sum(dim=1)
        unexplained = (
            offset.square().sum(dim=1)
            + var_d
            - 2 * (weight * cov_xd).sum(dim=(1, 2))
            + (weight * (cov_xx @ weight)).sum(dim=(1, 2))
        )
        var_y = (self.yy / self.n - (self.y / self.n).square()).sum()
        return 1 - unexplained / var_y
