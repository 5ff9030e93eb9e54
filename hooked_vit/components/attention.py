"""Multi-head attention with a name for every activation; queries, keys and values come from one fused product."""

import torch
from einops import rearrange
from fancy_einsum import einsum
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens import FactoredMatrix

from hooked_vit.components.norm import Norm
from hooked_vit.components.stored_weight import stored_weight
from hooked_vit.config import HookedViTConfig, NormConfig
from hooked_vit.hook_point import HookPoint, is_only_read, is_watched


def additive_mask(keys: Bool[Tensor, "batch key"], dtype: torch.dtype) -> Float[Tensor, "batch 1 1 key"]:
    """Zero at the keys that may be attended to, minus infinity at the others."""
    return torch.zeros(keys.shape, dtype=dtype, device=keys.device).masked_fill(~keys, -torch.inf)[:, None, None]


class AttentionCore(nn.Module):
    """`softmax(q kᵀ / sqrt(d_head)) v` for each head.

    While `fused` is on and no hook may edit the scores or the pattern, the values are mixed by
    `scaled_dot_product_attention`. If the two are only cached, they are computed in addition, and the logits do not
    change. With `qk_norm`, queries and keys are normalised between `hook_q`, `hook_k` and the scores; the hook points
    of those norms are [batch head token d_head]. `hook_attn_scores` and `hook_pattern` are [batch head query key].
    """

    def __init__(self, d_head: int, qk_norm: NormConfig | None):
        super().__init__()
        self.fused = True
        self.scale = d_head**-0.5
        self.q_norm = Norm(d_head, qk_norm) if qk_norm else None
        self.k_norm = Norm(d_head, qk_norm) if qk_norm else None
        self.hook_q = HookPoint()
        self.hook_k = HookPoint()
        self.hook_v = HookPoint()
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()

    def attend(
        self,
        q: Float[Tensor, "batch query head d_head"],
        k: Float[Tensor, "batch key head d_head"],
        v: Float[Tensor, "batch key head d_head"],
        mask: Float[Tensor, "batch 1 1 key"] | None,
    ) -> Float[Tensor, "batch query head d_head"]:
        """Mix the values by attention. `mask` is added to the scores: minus infinity where a key is left out."""
        q, k, v = self.hook_q(q).transpose(1, 2), self.hook_k(k).transpose(1, 2), self.hook_v(v).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        fused = self.fused and is_only_read(self.hook_attn_scores) and is_only_read(self.hook_pattern)
        watched = not fused or is_watched(self.hook_attn_scores) or is_watched(self.hook_pattern)
        if watched and not (fused and self._offers_pattern(q, k, mask)):
            scores = self.hook_attn_scores(self._masked_scores(q, k, mask))
            pattern = self.hook_pattern(scores.softmax(dim=-1))
            if not fused:
                return (pattern @ v).transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    def attend_unhooked(
        self,
        q: Float[Tensor, "batch query head d_head"],
        k: Float[Tensor, "batch key head d_head"],
        v: Float[Tensor, "batch key head d_head"],
        fused: bool,
    ) -> Float[Tensor, "batch query head d_head"]:
        """As `attend`, without a mask and past the hook points; `torch.func` can transform it if it is not `fused`."""
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm.fused(q), self.k_norm.fused(k)
        if fused:
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return (self._scores(q, k).softmax(dim=-1) @ v).transpose(1, 2)

    def _offers_pattern(self, q: Tensor, k: Tensor, mask: Tensor | None) -> bool:
        """Whether caches compute scores and pattern from the queries and keys when they are read."""
        points = {self.hook_attn_scores: self._masked_scores, self.hook_pattern: self._pattern}
        return all(point.offer(compute, q, k, mask) for point, compute in points.items())

    def _pattern(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        return self._masked_scores(q, k, mask).softmax(dim=-1)

    def _masked_scores(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        scores = self._scores(q, k)
        return scores if mask is None else scores + mask

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        # timm scales the query before the product; scaling the scores instead would differ in the last bit
        return (q * self.scale) @ k.transpose(-2, -1)


class Attention(AttentionCore):
    """Self-attention of a block, up to what it writes before LayerScale or a post-norm.

    Hook points besides those of `AttentionCore`:
        hook_z [batch token head d_head]: the input of W_O. With a norm inside the attention this is the norm's output,
            and `hook_z_pre` is its input, the mix of values.
        hook_result [batch token head d_model]: what each head adds to the residual stream, LayerScale included.
            It is computed only while a hook is attached (see `Block`).
    """

    def __init__(self, cfg: HookedViTConfig):
        super().__init__(cfg.d_head, cfg.qk_norm)
        self.n_heads, self.d_head, self.d_model = cfg.n_heads, cfg.d_head, cfg.d_model
        self.qkv = nn.Linear(cfg.d_model, 3 * cfg.n_heads * cfg.d_head, bias=cfg.qkv_bias)
        self.out = nn.Linear(cfg.n_heads * cfg.d_head, cfg.d_model, bias=cfg.attn_out_bias)
        self.ln = Norm(cfg.n_heads * cfg.d_head, cfg.attn_inner_norm) if cfg.attn_inner_norm else None
        self.hook_z = HookPoint()
        self.hook_z_pre = HookPoint() if self.ln is not None else None
        self.hook_result = HookPoint()

    def forward(
        self, x: Float[Tensor, "batch token d_model"], mask: Float[Tensor, "batch 1 1 key"] | None = None
    ) -> Float[Tensor, "batch token head d_head"]:
        """From the normed residual stream to `z`."""
        qkv = self.qkv(x).unflatten(-1, (3, self.n_heads, self.d_head))
        q, k, v = qkv.unbind(2)
        return self.mix(q, k, v, mask)

    def forward_split(
        self,
        q_input: Float[Tensor, "batch token head d_model"],
        k_input: Float[Tensor, "batch token head d_model"],
        v_input: Float[Tensor, "batch token head d_model"],
        mask: Float[Tensor, "batch 1 1 key"] | None = None,
    ) -> Float[Tensor, "batch token head d_head"]:
        """As `forward`, with a separate input for each head's queries, keys and values."""
        pattern = "batch token head d_model, head d_model d_head -> batch token head d_head"
        q = einsum(pattern, q_input, self.W_Q) + self.b_Q
        k = einsum(pattern, k_input, self.W_K) + self.b_K
        v = einsum(pattern, v_input, self.W_V) + self.b_V
        return self.mix(q, k, v, mask)

    def mix(
        self,
        q: Float[Tensor, "batch token head d_head"],
        k: Float[Tensor, "batch token head d_head"],
        v: Float[Tensor, "batch token head d_head"],
        mask: Float[Tensor, "batch 1 1 key"] | None,
    ) -> Float[Tensor, "batch token head d_head"]:
        """From queries, keys and values to `z`."""
        z = self.attend(q, k, v, mask)
        if self.ln is not None and self.hook_z_pre is not None:
            z = self.ln(self.hook_z_pre(z).flatten(-2)).unflatten(-1, (self.n_heads, self.d_head))
        return self.hook_z(z)

    def queries_keys_values(
        self, x: Float[Tensor, "batch token d_model"], queries: slice
    ) -> tuple[
        Float[Tensor, "batch query head d_head"],
        Float[Tensor, "batch token head d_head"],
        Float[Tensor, "batch token head d_head"],
    ]:
        """Queries of some of the tokens, keys and values of all tokens, past the hook points."""
        weight, bias, width = stored_weight(self.qkv), self.qkv.bias, self.n_heads * self.d_head
        q = F.linear(x[:, queries], weight[:width], None if bias is None else bias[:width])
        kv = F.linear(x, weight[width:], None if bias is None else bias[width:])
        k, v = kv.unflatten(-1, (2, self.n_heads, self.d_head)).unbind(2)
        return q.unflatten(-1, (self.n_heads, self.d_head)), k, v

    def norm_z(self, z_pre: Float[Tensor, "*axes head d_head"]) -> Float[Tensor, "*axes head d_head"]:
        """From the mix of values to `z`, past the hook points; the two are equal if there is no norm between them."""
        if self.ln is None:
            return z_pre
        return self.ln.fused(z_pre.flatten(-2)).unflatten(-1, (self.n_heads, self.d_head))

    def project(self, z: Float[Tensor, "*axes head d_head"]) -> Float[Tensor, "*axes d_model"]:
        """All heads through W_O at once, with the bias."""
        return self.out(z.flatten(-2))

    def project_heads(self, z: Float[Tensor, "*axes head d_head"]) -> Float[Tensor, "*axes head d_model"]:
        """Each head through its own part of W_O, without the bias."""
        return torch.einsum("...hd,hdm->...hm", z, self.W_O)

    def _qkv_weight(self, index: int) -> Float[Tensor, "head d_model d_head"]:
        weight = stored_weight(self.qkv).view(3, self.n_heads, self.d_head, self.d_model)
        return weight[index].transpose(-2, -1)

    def _qkv_bias(self, index: int) -> Float[Tensor, "head d_head"]:
        if self.qkv.bias is None:
            return self.qkv.weight.new_zeros(self.n_heads, self.d_head)
        return self.qkv.bias.view(3, self.n_heads, self.d_head)[index]

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        """Query weights, a view of the stored weight."""
        return self._qkv_weight(0)

    @property
    def W_K(self) -> Float[Tensor, "head d_model d_head"]:
        """Key weights, a view of the stored weight."""
        return self._qkv_weight(1)

    @property
    def W_V(self) -> Float[Tensor, "head d_model d_head"]:
        """Value weights, a view of the stored weight."""
        return self._qkv_weight(2)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """Output weights, a view of the stored weight; with the heads flattened, its rows are value vectors."""
        return rearrange(stored_weight(self.out), "d_model (head d_head) -> head d_head d_model", head=self.n_heads)

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:
        """Query bias; zeros if the model has none."""
        return self._qkv_bias(0)

    @property
    def b_K(self) -> Float[Tensor, "head d_head"]:
        """Key bias; zeros if the model has none."""
        return self._qkv_bias(1)

    @property
    def b_V(self) -> Float[Tensor, "head d_head"]:
        """Value bias; zeros if the model has none."""
        return self._qkv_bias(2)

    @property
    def b_O(self) -> Float[Tensor, "d_model"]:
        """Output bias; zeros if the model has none."""
        return self.out.weight.new_zeros(self.d_model) if self.out.bias is None else self.out.bias

    @property
    def QK(self) -> FactoredMatrix:
        """`W_Q W_Kᵀ` of each head: which directions of the stream attend to which, [head d_model d_model], factored."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """`W_V W_O` of each head: what is written when a token is attended to, [head d_model d_model], factored."""
        return FactoredMatrix(self.W_V, self.W_O)
