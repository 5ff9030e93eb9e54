"""Pooling the tokens before the head: by mean, maximum, or a learned query that attends to them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hooked_vit.components.attention import AttentionCore
from hooked_vit.components.attention_terms import AttentionTerms
from hooked_vit.components.mlp import Mlp
from hooked_vit.components.norm import Norm
from hooked_vit.config import HookedViTConfig, Pool
from hooked_vit.hook_point import HookPoint


class AttentionPool(AttentionCore):
    """One learned query attends to the tokens; an MLP with a residual connection follows.

    Hook points: `hook_q` [batch 1 head d_head], `hook_k`, `hook_v` [batch token head d_head], `hook_attn_scores`,
    `hook_pattern` [batch head 1 key], `hook_z` [batch 1 head d_head], `hook_attn_out`, `hook_mlp_out`
    [batch 1 d_model], and those of `ln` and `mlp`.
    """

    def __init__(self, cfg: HookedViTConfig):
        super().__init__(cfg.d_model // cfg.pool_n_heads, cfg.pool_qk_norm)
        self.n_heads = cfg.pool_n_heads
        self.latent = nn.Parameter(torch.zeros(1, cfg.d_model))
        self.q = nn.Linear(cfg.d_model, cfg.d_model, bias=cfg.pool_qkv_bias)
        self.kv = nn.Linear(cfg.d_model, 2 * cfg.d_model, bias=cfg.pool_qkv_bias)
        self.out = nn.Linear(cfg.d_model, cfg.d_model)
        self.ln = Norm(cfg.d_model, cfg.pool_norm) if cfg.pool_norm else None
        self.mlp = Mlp(cfg.d_model, cfg.pool_d_mlp, cfg.pool_act_fn)
        self.hook_z = HookPoint()
        self.hook_attn_out = HookPoint()
        self.hook_mlp_out = HookPoint()

    def forward(
        self, tokens: Float[Tensor, "batch token d_model"], mask: Float[Tensor, "batch 1 1 token"] | None = None
    ) -> Float[Tensor, "batch d_model"]:
        """Pool the tokens. `mask` is added to the attention scores."""
        k, v = self._keys_values(tokens).unbind(2)
        z = self.hook_z(self.attend(self._query(tokens.shape[0]), k, v, AttentionTerms(mask)))
        pooled = self.hook_attn_out(self.out(z.flatten(-2)))
        pooled = pooled + self.hook_mlp_out(self.mlp(pooled if self.ln is None else self.ln(pooled)))
        return pooled[:, 0]

    def pool(self, tokens: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch d_model"]:
        """Pool the tokens past the hook points, by plain operations that `torch.func` can transform.

        >>> cfg = HookedViTConfig(2, 12, 3, 20, 7, (16, 24), (8, 8), pool="attention", pool_n_heads=2, pool_d_mlp=18)
        >>> pool, tokens = AttentionPool(cfg), torch.randn(4, 6, 12)
        >>> torch.allclose(pool.pool(tokens), pool(tokens), atol=1e-6)
        True
        """
        k, v = self._keys_values(tokens).unbind(2)
        z = self.attend_unhooked(self._query(tokens.shape[0]), k, v, fused=False)
        return self._after_attention(z[:, 0].flatten(-2))

    def pool_alone(self, tokens: Float[Tensor, "vector d_model"]) -> Float[Tensor, "vector d_model"]:
        """Pool each vector as if it were the only token, past the hook points."""
        _, v = self.kv(tokens).chunk(2, dim=-1)
        return self._after_attention(v)  # the softmax over a single key is one

    def _query(self, n_images: int) -> Float[Tensor, "batch 1 head d_head"]:
        return self.q(self.latent.expand(n_images, 1, -1)).unflatten(-1, (self.n_heads, -1))

    def _keys_values(self, tokens: Tensor) -> Float[Tensor, "batch token 2 head d_head"]:
        return self.kv(tokens).unflatten(-1, (2, self.n_heads, -1))

    def _after_attention(self, z: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes d_model"]:
        """The output projection and the MLP, past the hook points."""
        pooled = self.out(z)
        return pooled + self.mlp.out(self.mlp.neurons(pooled if self.ln is None else self.ln.fused(pooled)))


def pool_tokens(
    tokens: Float[Tensor, "batch token d_model"], pool: Pool, mask: Bool[Tensor, "batch token"] | None = None
) -> Float[Tensor, "batch d_model"]:
    """Pool by mean, maximum, or the mean of the two; tokens at which `mask` is False are left out."""
    if pool == "avg":
        return _mean(tokens, mask)
    largest = (tokens if mask is None else tokens.masked_fill(~mask[..., None], -torch.inf)).amax(dim=1)
    return largest if pool == "max" else 0.5 * (largest + _mean(tokens, mask))


def _mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return tokens.mean(dim=1)
    # not a product: a token that is left out may be NaN or infinite
    return torch.where(mask[..., None], tokens, 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
