"""How tokens are pooled in front of the head: by mean, maximum, or a learned query that attends to them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hooked_vit.components.attention import AttentionCore
from hooked_vit.components.mlp import Mlp
from hooked_vit.components.norm import Norm
from hooked_vit.config import HookedViTConfig, Pool
from hooked_vit.hook_point import HookPoint, unbind


class AttentionPool(AttentionCore):
    """One learned query attends to the tokens; an MLP with a residual connection follows.

    hook points: `hook_q` [batch 1 head d_head], `hook_k`, `hook_v` [batch token head d_head], `hook_attn_scores`,
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
        """Pool the tokens."""
        heads = (self.n_heads, -1)
        q = self.q(self.latent.expand(len(tokens), 1, -1)).unflatten(-1, heads)
        k, v = unbind(self.kv(tokens).unflatten(-1, (2, *heads)), 2, self.hook_k, self.hook_v)
        z = self.hook_z(self.attend(q, k, v, mask))
        pooled = self.hook_attn_out(self.out(z.flatten(-2)))
        pooled = pooled + self.hook_mlp_out(self.mlp(pooled if self.ln is None else self.ln(pooled)))
        return pooled[:, 0]

    def pool_alone(self, tokens: Float[Tensor, "vector d_model"]) -> Float[Tensor, "vector d_model"]:
        """Pool each vector as if it were the only token, past the hook points."""
        _, v = self.kv(tokens).chunk(2, dim=-1)  # softmax over a single key is one
        pooled = self.out(v)
        hidden = self.mlp.inp(pooled if self.ln is None else self.ln.fused(pooled))
        return pooled + self.mlp.out(self.mlp.act(hidden))


def pool_tokens(
    tokens: Float[Tensor, "batch token d_model"], pool: Pool, mask: Bool[Tensor, "batch token"] | None = None
) -> Float[Tensor, "batch d_model"]:
    """Pool by mean, maximum, or the mean of the two; where `mask` is False a token stays out."""
    if pool == "avg":
        return _mean(tokens, mask)
    largest = (tokens if mask is None else tokens.masked_fill(~mask[..., None], -torch.inf)).amax(dim=1)
    return largest if pool == "max" else 0.5 * (largest + _mean(tokens, mask))


def _mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return tokens.mean(dim=1)
    # where, not a product: a token that stays out may hold anything
    return torch.where(mask[..., None], tokens, 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
