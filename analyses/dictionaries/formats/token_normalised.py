"""Dictionaries that normalise each token by its own statistics, written as affine dictionaries with extra latents."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.dictionaries.choosing import above_threshold, largest
from analyses.dictionaries.dictionary import Dictionary, DictionaryConfig

__all__ = ["TokenNormalisation", "TokenNormalised"]

TokenNormalisation = Literal["layer_norm", "constant_norm_rescale"]
_EPS = 1e-5


class TokenNormalised(Dictionary):
    """A dictionary of tokens normalised one by one, as ViT-Prisma's and some of sae-lens's are.

    With m and s the mean and standard deviation of a token (`layer_norm`, s with n - 1 in the denominator), such an
    autoencoder computes `f = active(W (x - m) / (s + 1e-5) + b)` and `x_hat = (f D + b_dec) s + m`. Undoing the
    normalisation needs s and m, which `decode` does not get. So they become latents themselves: `encode` returns
    `[f s, s, m]`, and `decode` is affine, with the rows of D, then b_dec, then ones as directions. Latents are in the
    activation's own units, and the last ones, `n_extra`, are always active. `constant_norm_rescale` has
    `c = sqrt(d) / |x|`, latents `[f / c, 1 / c]` and one extra latent.

    >>> config = DictionaryConfig("relu", 24, 24, 96, "hook_tokens", "hook_tokens")
    >>> dictionary = TokenNormalised(config, "layer_norm")
    >>> x = torch.randn(5, 24)
    >>> dictionary.encode(x).shape, torch.allclose(dictionary(x), x.mean(dim=-1, keepdim=True).expand_as(x))
    (torch.Size([5, 98]), True)
    """

    def __init__(self, config: DictionaryConfig, how: TokenNormalisation):
        """Zeros as weights; `config.d_dict` counts the latents without the extra ones.

        Raises:
            ValueError: If there is no such normalisation, or it is a transcoder or a kind with one threshold.
        """
        if how not in get_args(TokenNormalisation):
            raise ValueError(f"expected one of {', '.join(get_args(TokenNormalisation))}, got {how!r}")
        if config.is_transcoder or config.kind not in ("relu", "topk", "jump_relu"):
            raise ValueError(
                f"tokens are normalised one by one in autoencoders of kind relu, topk or jump_relu, got {config.kind!r}"
                f"{', a transcoder' if config.is_transcoder else ''}"
            )
        self.n_extra = 2 if how == "layer_norm" else 1
        self.n_own, self.how = config.d_dict, how
        super().__init__(replace(config, d_dict=config.d_dict + self.n_extra))
        with torch.no_grad():
            if how == "layer_norm":
                self.W_dec[-1] = 1

    def pre_activations(self, x: Float[Tensor, "*axes d_in"]) -> Float[Tensor, "*axes own"]:
        """What the latents are before some are set to zero, in normalised units and without the extra ones."""
        return self._normalised(x)[0] @ self.W_enc[:, : self.n_own] + self.b_enc[: self.n_own]

    def encode(self, x: Float[Tensor, "*axes d_in"]) -> Float[Tensor, "*axes d_dict"]:
        """The latents in the activation's units, then the token's statistics.

        Raises:
            ValueError: If the activation has another width.
        """
        self.check_width(x)
        normalised, extra = self._normalised(x)
        pre = normalised @ self.W_enc[:, : self.n_own] + self.b_enc[: self.n_own]
        if self.config.kind == "topk":
            assert self.config.k is not None
            active = largest(pre, self.config.k)
        else:
            active = pre.relu() if self.config.kind == "relu" else above_threshold(pre, self.threshold[: self.n_own])
        return torch.cat([active * extra[..., :1], extra], dim=-1)

    def _normalised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The token in normalised units, and what undoes it: the factor first."""
        x = x.to(self.W_enc.dtype)
        if self.how == "layer_norm":
            mean, deviation = x.mean(dim=-1, keepdim=True), x.std(dim=-1, keepdim=True)
            return (x - mean) / (deviation + _EPS), torch.cat([deviation, mean], dim=-1)
        factor = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        return x / factor, factor

    def folded(self) -> "Dictionary":
        """Not possible: raises ValueError."""
        raise ValueError("a normalisation of each token by itself cannot be folded into weights")

    def save(self, path: str | Path, dtype: torch.dtype | None = None) -> None:
        """Not possible: raises ValueError."""
        raise ValueError("dictionaries that normalise each token by itself are not saved: load the original file again")
