"""Outlier scores of tokens: the norm relative to the image's patches, and the share of attention that they draw."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.projection import stream_names
from hooked_vit import HookedViT, HookedViTConfig, TokenLayout, ViTActivationCache

__all__ = [
    "THRESHOLD",
    "OutlierScores",
    "attention_received",
    "check_threshold",
    "norm_ratios",
    "outlier_names",
    "outlier_scores",
]

THRESHOLD = 3.0
"""Tokens whose norm is more than this many times the median of the image's patches are outliers.

The published thresholds are absolute norms, chosen for each model from a histogram: 150 for DINOv2-g, whose other
patches have norms up to about 100, most of them near 50 (Darcet et al. 2024, figure 3). A ratio fits every model.
"""


@dataclass(frozen=True)
class OutlierScores:
    """Scores of tokens, for each block and image.

    Attributes:
        norm_ratio: The norm of `resid_post`, divided by the median of the norms of the image's patches.
        attention: The share of the block's attention that the token receives: the mean over heads and queries. It
            sums to 1 over the tokens.
        threshold: The norm ratio above which a token is an outlier.
    """

    norm_ratio: Float[Tensor, "layer batch token"]
    attention: Float[Tensor, "layer batch token"]
    threshold: float

    @property
    def is_outlier(self) -> Bool[Tensor, "layer batch token"]:
        """Whether the token is an outlier in the stream that leaves the block."""
        return self.norm_ratio > self.threshold


def outlier_names(cfg: HookedViTConfig) -> list[str]:
    """The hook points that `outlier_scores` reads: a `names_filter` for `run_with_cache`.

    >>> outlier_names(HookedViT.from_pretrained("emoji-vit").cfg)[-1]
    'blocks.7.attn.hook_pattern'
    """
    return stream_names(cfg, "resid_post") + [f"blocks.{layer}.attn.hook_pattern" for layer in range(cfg.n_layers)]


def outlier_scores(
    model: HookedViT,
    cache: ViTActivationCache,
    threshold: float | int = THRESHOLD,
    layout: TokenLayout | None = None,
) -> OutlierScores:
    """Score every token of a run by its norm and by the attention that it draws, after each block.

    Outlier tokens are patches of little content whose place the model uses for global information (Darcet et al. 2024,
    "Vision Transformers Need Registers"): their norm is several times that of others, and most queries attend to them.

    Args:
        model: The model.
        cache: Holds the hook points of `outlier_names`, with a batch axis.
        threshold: The norm ratio above which a token is an outlier.
        layout: Which tokens the run has, for images of another size than the model's own:
            `model.cfg.token_layout_at(height, width)`.

    Raises:
        ValueError: If the cache lacks a hook point or has other tokens than the layout, or the threshold is not above
            1.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.randn(2, 3, 64, 64), names_filter=outlier_names(model.cfg))
    >>> scores = outlier_scores(model, cache)
    >>> scores.norm_ratio.shape, scores.attention.sum(-1).allclose(torch.ones(8, 2))
    (torch.Size([8, 2, 65]), True)
    """
    names, layers = outlier_names(model.cfg), range(model.cfg.n_layers)
    cache.require(names, how="outlier_names(model.cfg)", reader="outlier_scores")
    layout = model.token_layout if layout is None else layout
    ratios = torch.stack([norm_ratios(cache["resid_post", layer], layout) for layer in layers])
    attention = torch.stack([attention_received(cache["pattern", layer]) for layer in layers])
    return OutlierScores(ratios, attention, check_threshold(threshold))


def norm_ratios(residual: Float[Tensor, "batch token d_model"], layout: TokenLayout) -> Float[Tensor, "batch token"]:
    """The norm of each token, divided by the median of the norms of the image's patches.

    Raises:
        ValueError: If the token axis is not the layout's.

    >>> residual = torch.tensor([[[8.0], [1.0], [2.0], [3.0]]])
    >>> norm_ratios(residual, TokenLayout(n_cls=1, n_dist=0, n_registers=0, grid=(1, 3)))
    tensor([[4.0000, 0.5000, 1.0000, 1.5000]])
    """
    if residual.shape[1] != layout.n_tokens:
        raise ValueError(
            f"expected {layout.n_tokens} tokens, those of a grid of {layout.grid[0]} × {layout.grid[1]} patches, got a "
            f"stream of shape {tuple(residual.shape)}: keep all tokens, and pass the layout of the images' size, "
            "`model.cfg.token_layout_at(height, width)`"
        )
    norms = residual.float().norm(dim=-1)
    median = norms[:, layout.patches].quantile(0.5, dim=1, keepdim=True)
    return norms / median.clamp(min=torch.finfo(torch.float32).tiny)


def attention_received(pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch key"]:
    """The share of all attention that each token receives: the mean over heads and queries.

    >>> attention_received(torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]]))
    tensor([[0.7500, 0.2500]])
    """
    return pattern.float().mean(dim=(1, 2))


def check_threshold(threshold: float | int) -> float:
    """The threshold as a number.

    Raises:
        ValueError: If it is not above 1: half of all patches are above the median.
    """
    if not threshold > 1:
        raise ValueError(
            f"expected a threshold above 1, a multiple of the median norm of an image's patches, got {threshold}"
        )
    return float(threshold)
