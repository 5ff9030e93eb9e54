"""Differential attention: each head subtracts one softmax pattern from another."""

from typing import NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hooked_vit.components.attention import Attention
from hooked_vit.components.attention_terms import NO_TERMS, AttentionTerms
from hooked_vit.components.norm import Norm
from hooked_vit.config import HookedViTConfig, NormConfig
from hooked_vit.hook_point import HookPoint, is_only_read, is_watched


class DifferentialAttention(Attention):
    """`z = (1 - λ₀) norm((softmax(q₁ k₁ᵀ / s) - λ softmax(q₂ k₂ᵀ / s)) v)` for each head, `s = sqrt(d_head / 2)`
    (Ye et al. 2024, arXiv 2410.05258).

    The first half of a head's query and key (`hook_q`, `hook_k`, `W_Q`, `W_K`) is q₁, k₁, the second q₂, k₂; a value
    is whole. `λ = exp(λ_q1 · λ_k1) - exp(λ_q2 · λ_k2) + λ₀`, or `exp(λ_a) - exp(λ_b) + λ₀`; λ₀ (`lambda_init`) is a
    constant of the layer.

    Hook points instead of `hook_attn_scores`, and besides the others of `Attention`:
        hook_attn_scores_1, hook_attn_scores_2, hook_pattern_1, hook_pattern_2 [batch head query key]: of the two
            softmaxes. `hook_pattern` is the difference, which the values are multiplied by; its rows sum to 1 - λ, and
            its entries may be negative.
        hook_lambda [batch]: λ.
        head_ln: the norm of each head's mix of values, an RMSNorm; its hook points are [batch token head d_head], and
            `hook_z_pre` is its input.
    """

    def __init__(self, cfg: HookedViTConfig, layer: int = 0):
        super().__init__(cfg, layer)
        assert cfg.differential is not None
        half = cfg.d_head // 2
        self.scale = half**-0.5
        self.q_norm = Norm(half, cfg.qk_norm) if cfg.qk_norm else None
        self.k_norm = Norm(half, cfg.qk_norm) if cfg.qk_norm else None
        self.head_ln = Norm(cfg.d_head, NormConfig("rms", 1e-5, has_bias=False))
        self.lambda_init = cfg.differential.lambda_init[layer]
        shapes = dict.fromkeys(("a", "b"), ()) if cfg.differential.dual else dict.fromkeys(_VECTORS, (half,))
        self.lambdas = nn.ParameterDict({name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()})
        del self.hook_attn_scores
        self.hook_attn_scores_1 = HookPoint()
        self.hook_attn_scores_2 = HookPoint()
        self.hook_pattern_1 = HookPoint()
        self.hook_pattern_2 = HookPoint()
        self.hook_lambda = HookPoint()
        self.hook_z_pre = HookPoint()

    def lambda_full(self) -> Float[Tensor, ""]:
        """λ, the weight of the second pattern."""
        if "a" in self.lambdas:
            first, second = self.lambdas["a"].exp(), self.lambdas["b"].exp()
        else:
            q1, k1, q2, k2 = (self.lambdas[name] for name in _VECTORS)
            first, second = ((q * k).sum(dim=-1).float().exp() for q, k in ((q1, k1), (q2, k2)))
        return first - second + self.lambda_init

    def attend(
        self,
        q: Float[Tensor, "batch query head d_head"],
        k: Float[Tensor, "batch key head d_head"],
        v: Float[Tensor, "batch key head d_head"],
        terms: AttentionTerms = NO_TERMS,
    ) -> Float[Tensor, "batch query head d_head"]:
        """Mix the values by the difference of the two patterns."""
        q, k, v = self._halves(self.hook_q(q)), self._halves(self.hook_k(k)), self.hook_v(v).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        weight = self.hook_lambda(self.lambda_full().type_as(q).expand(len(q)))[:, None, None, None]
        points = (self.hook_attn_scores_1, self.hook_attn_scores_2, self.hook_pattern_1, self.hook_pattern_2)
        points = (*points, self.hook_pattern)
        fused = self.fused and all(is_only_read(point) for point in points)
        if not fused or any(is_watched(point) for point in points):
            scores_1, scores_2 = self._pair(self._scores(q, k, None, terms.mask))
            pattern_1 = self.hook_pattern_1(self.hook_attn_scores_1(scores_1).softmax(dim=-1))
            pattern_2 = self.hook_pattern_2(self.hook_attn_scores_2(scores_2).softmax(dim=-1))
            pattern = self.hook_pattern(pattern_1 - weight * pattern_2)
            if not fused:
                return (pattern @ v).transpose(1, 2)
        return self._fused_mix(q, k, v, weight, terms.mask)

    def attend_unhooked(
        self,
        q: Float[Tensor, "batch query head d_head"],
        k: Float[Tensor, "batch key head d_head"],
        v: Float[Tensor, "batch key head d_head"],
        fused: bool,
        terms: AttentionTerms = NO_TERMS,
        queries: slice = slice(None),
    ) -> Float[Tensor, "batch query head d_head"]:
        """As `attend`, past the hook points; `torch.func` can transform it if it is not `fused`."""
        q, k, v = self._halves(q), self._halves(k), v.transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm.fused(q), self.k_norm.fused(k)
        weight = self.lambda_full().type_as(q)
        if fused:
            return self._fused_mix(q, k, v, weight, terms.mask)
        pattern_1, pattern_2 = self._pair(self._scores(q, k, None, terms.mask).softmax(dim=-1))
        return ((pattern_1 - weight * pattern_2) @ v).transpose(1, 2)

    def _halves(self, x: Float[Tensor, "batch token head d_head"]) -> Float[Tensor, "batch half_head token half"]:
        """The two halves of each head next to each other, as heads of half the width."""
        return x.unflatten(-1, (2, -1)).flatten(2, 3).transpose(1, 2)

    def _pair(self, per_half: Tensor) -> tuple[Tensor, Tensor]:
        first, second = per_half.unflatten(1, (self.n_heads, 2)).unbind(2)
        return first, second

    def _fused_mix(self, q: Tensor, k: Tensor, v: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
        (q1, q2), (k1, k2) = self._pair(q), self._pair(k)
        first = F.scaled_dot_product_attention(q1, k1, v, attn_mask=mask)
        second = F.scaled_dot_product_attention(q2, k2, v, attn_mask=mask)
        return (first - weight * second).transpose(1, 2)

    def mix(
        self,
        q: Float[Tensor, "batch token head d_head"],
        k: Float[Tensor, "batch token head d_head"],
        v: Float[Tensor, "batch token head d_head"],
        terms: AttentionTerms = NO_TERMS,
        gate: Float[Tensor, "batch token head d_head"] | None = None,
    ) -> Float[Tensor, "batch token head d_head"]:
        """From queries, keys and values to `z`."""
        assert self.hook_z_pre is not None
        z = self.head_ln(self.hook_z_pre(self.attend(q, k, v, terms))) * (1 - self.lambda_init)
        if self.ln is not None:
            z = self.ln(z.flatten(-2)).unflatten(-1, (self.n_heads, self.d_head))
        return self.hook_z(z)

    def norm_z(
        self,
        z_pre: Float[Tensor, "*axes head d_head"],
        gate: Float[Tensor, "*#axes head d_head"] | None = None,
    ) -> Float[Tensor, "*axes head d_head"]:
        """From the mix of values to `z`, past the hook points."""
        return super().norm_z(self.head_ln.fused(z_pre) * (1 - self.lambda_init))

    @property
    def QK(self) -> NoReturn:
        """Raises ValueError: a head has two such products, whose softmaxes are subtracted."""
        raise ValueError(TWO_QK)


TWO_QK = (
    "a differential head has two products QK, one for each half of its queries and keys: "
    "FactoredMatrix(W_Q[..., :half], W_K[..., :half].mT) and the same with [half:], where half = d_head // 2"
)
_VECTORS = ("q1", "k1", "q2", "k2")
