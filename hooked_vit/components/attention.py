"""Multi-head attention with a name for every activation."""

from typing import Literal

import torch
from einops import rearrange
from fancy_einsum import einsum
from jaxtyping import Float
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens import FactoredMatrix

from hooked_vit.components.attention_terms import NO_TERMS, AttentionTerms, bias_at
from hooked_vit.components.gemma_rotary import rotate_each_half
from hooked_vit.components.norm import Norm
from hooked_vit.components.qkv import QKV, made_qkv
from hooked_vit.components.relative_bias import RelativeBias
from hooked_vit.components.stored_weight import stored_weight
from hooked_vit.config import HookedViTConfig, NormConfig, RotaryConfig
from hooked_vit.hook_point import HookPoint, is_only_read, is_watched


class AttentionCore(nn.Module):
    """`softmax(q kᵀ / sqrt(d_head)) v` for each head.

    While `fused` is on and no hook may edit the scores or the pattern, the values are mixed by
    `scaled_dot_product_attention`. If the two are only cached, they are computed in addition, and the logits do not
    change. With `qk_norm`, queries and keys are normalised between `hook_q`, `hook_k` and the scores; the hook points
    of those norms are [batch head token d_head]. With rotary positions they are rotated next: `hook_rot_q`,
    `hook_rot_k`. `hook_attn_scores` and `hook_pattern` are [batch head query key]; a bias of the scores is included.
    If several query heads share a key and value head, `hook_k`, `hook_rot_k` and `hook_v` have the fewer heads.
    """

    def __init__(self, d_head: int, qk_norm: NormConfig | None, rotary: RotaryConfig | None = None):
        super().__init__()
        self.fused = True
        self.scale = d_head**-0.5
        self.sdpa_scale: float | None = None
        self.scale_scores = False
        self.q_norm = Norm(d_head, qk_norm) if qk_norm else None
        self.k_norm = Norm(d_head, qk_norm) if qk_norm else None
        self.rotate_half = None if rotary is None else rotary.rotate_half or rotary.kind == "mrope"
        self.gemma = rotary is not None and rotary.kind == "gemma"
        self.relative_bias: RelativeBias | None = None
        self.hook_q = HookPoint()
        self.hook_k = HookPoint()
        self.hook_v = HookPoint()
        self.hook_rot_q = HookPoint() if rotary else None
        self.hook_rot_k = HookPoint() if rotary else None
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()

    def attend(
        self,
        q: Float[Tensor, "batch query head d_head"],
        k: Float[Tensor, "batch key kv_head d_head"],
        v: Float[Tensor, "batch key kv_head d_head"],
        terms: AttentionTerms = NO_TERMS,
    ) -> Float[Tensor, "batch query head d_head"]:
        """Mix the values by attention."""
        q, k, v = self.hook_q(q).transpose(1, 2), self.hook_k(k).transpose(1, 2), self.hook_v(v).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.hook_rot_q is not None and self.hook_rot_k is not None:
            # contiguous, as timm's are: the product's last bit depends on it
            q, k = (self._rotate(x, terms.rotation).type_as(v).contiguous() for x in (q, k))
            q = self.hook_rot_q(q.transpose(1, 2)).transpose(1, 2)
            k = self.hook_rot_k(k.transpose(1, 2)).transpose(1, 2)
        k, v = self._repeat(k, q), self._repeat(v, q)
        bias = self._bias(terms)
        fused = self.fused and is_only_read(self.hook_attn_scores) and is_only_read(self.hook_pattern)
        watched = not fused or is_watched(self.hook_attn_scores) or is_watched(self.hook_pattern)
        if watched and not (fused and self._offers_pattern(q, k, bias, terms.mask)):
            scores = self._scores(q, k, bias, terms.mask)
            pattern = self.hook_pattern(self.hook_attn_scores(scores).softmax(dim=-1))
            if not fused:
                return (pattern @ v).transpose(1, 2)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=_sum(bias, terms.mask), scale=self.sdpa_scale
        ).transpose(1, 2)

    def attend_unhooked(
        self,
        q: Float[Tensor, "batch query head d_head"],
        k: Float[Tensor, "batch key kv_head d_head"],
        v: Float[Tensor, "batch key kv_head d_head"],
        fused: bool,
        terms: AttentionTerms = NO_TERMS,
        queries: slice = slice(None),
    ) -> Float[Tensor, "batch query head d_head"]:
        """As `attend`, past the hook points, for queries of some tokens; `torch.func` can transform it if it is not
        `fused`."""
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm.fused(q), self.k_norm.fused(k)
        if self.rotate_half is not None:
            q = self._rotate(q, None if terms.rotation is None else terms.rotation[..., queries, :]).type_as(v)
            k = self._rotate(k, terms.rotation).type_as(v)
        k, v = self._repeat(k, q), self._repeat(v, q)
        bias = self._bias(terms)
        bias = None if bias is None else bias[:, :, queries]
        if fused:
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=_sum(bias, terms.mask), scale=self.sdpa_scale
            ).transpose(1, 2)
        return (self._scores(q, k, bias, terms.mask).softmax(dim=-1) @ v).transpose(1, 2)

    def _offers_pattern(self, *reads: Tensor | None) -> bool:
        """Whether caches compute scores and pattern from the queries and keys when they are read."""
        points = {self.hook_attn_scores: self._scores, self.hook_pattern: self._pattern}
        return all(point.offer(compute, *reads) for point, compute in points.items())

    def _pattern(self, q: Tensor, k: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
        return self._scores(q, k, bias, mask).softmax(dim=-1)

    def _rotate(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        if rotation is None:
            raise ValueError(
                "attention with rotary positions needs the rotation of each token: pass terms="
                "model.attention_terms().at(layer)"
            )
        return (
            rotate_each_half(x, rotation)
            if self.gemma
            else apply_rot_embed_cat(x, rotation, half=bool(self.rotate_half))
        )

    def _repeat(self, x: Tensor, q: Tensor) -> Tensor:
        """Keys or values for every query head: neighbouring heads share them."""
        n_sharing = q.shape[1] // x.shape[1]
        return x if n_sharing == 1 else x.repeat_interleave(n_sharing, dim=1)

    def _bias(self, terms: AttentionTerms) -> Tensor | None:
        if self.relative_bias is None:
            return terms.bias
        bias = self.relative_bias()
        return bias if terms.kept is None else bias_at(bias, terms.kept)

    def _scores(self, q: Tensor, k: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
        # timm scales the query before the product, transformers the scores after it: they differ in the last bit
        keys = k.transpose(-2, -1)
        scores = q @ keys * self.scale if self.scale_scores else (q * self.scale) @ keys
        scores = scores if bias is None else scores + bias
        return scores if mask is None else scores + mask


def _sum(bias: Tensor | None, mask: Tensor | None) -> Tensor | None:
    if bias is None or mask is None:
        return mask if bias is None else bias
    return bias + mask


class Attention(AttentionCore):
    """Self-attention of a block, up to what it writes before LayerScale or a post-norm.

    Hook points besides those of `AttentionCore`:
        hook_z [batch token head d_head]: the input of W_O. With a norm inside the attention, or a gate, this is their
            output, and `hook_z_pre` is their input, the mix of values.
        hook_v_pre [batch token head d_head]: values before a norm of the values, of models that have one. `hook_v` is
            then its output, what is mixed; the norm's points are [batch token head d_head].
        hook_gate [batch token head d_head]: what a gated attention multiplies the mix (after the norm) by.
        hook_result [batch token head d_model]: what each head adds to the residual stream, LayerScale included.
            It is computed only while a hook is attached (see `Block`).
    """

    def __init__(self, cfg: HookedViTConfig, layer: int = 0):
        super().__init__(cfg.d_head, cfg.qk_norm, cfg.rotary)
        self.n_heads, self.d_head, self.d_model = cfg.n_heads, cfg.d_head, cfg.d_model
        self.n_key_value_heads, self.scale_scores = cfg.n_key_value_heads_at(layer), cfg.scale_scores
        if cfg.attn_scale is not None:
            self.scale = self.sdpa_scale = cfg.attn_scale
        self.v_norm = Norm(cfg.d_head, cfg.v_norm) if cfg.v_norm else None
        self.hook_v_pre = HookPoint() if cfg.v_norm else None
        self.qkv = made_qkv(cfg, layer)
        self.gate = nn.Linear(cfg.d_model, cfg.n_heads * cfg.d_head, bias=cfg.qkv_bias) if cfg.gated_attn else None
        self.out = nn.Linear(cfg.n_heads * cfg.d_head, cfg.d_model, bias=cfg.attn_out_bias)
        self.ln = Norm(cfg.n_heads * cfg.d_head, cfg.attn_inner_norm) if cfg.attn_inner_norm else None
        if cfg.relative_bias is not None and not cfg.relative_bias.shared:
            self.relative_bias = RelativeBias(cfg)
        self.hook_z = HookPoint()
        self.hook_z_pre = HookPoint() if self.ln is not None or self.gate is not None else None
        self.hook_gate = HookPoint() if self.gate is not None else None
        self.hook_result = HookPoint()

    def forward(
        self, x: Float[Tensor, "batch token d_model"], terms: AttentionTerms = NO_TERMS
    ) -> Float[Tensor, "batch token head d_head"]:
        """From the normed residual stream to `z`."""
        gate = self.gate_values(x)
        q, k, v = self._split(self.qkv(x))
        return self.mix(q, k, v, terms, gate)

    def forward_split(
        self,
        q_input: Float[Tensor, "batch token head d_model"],
        k_input: Float[Tensor, "batch token kv_head d_model"],
        v_input: Float[Tensor, "batch token kv_head d_model"],
        terms: AttentionTerms = NO_TERMS,
        gate: Float[Tensor, "batch token head d_head"] | None = None,
    ) -> Float[Tensor, "batch token head d_head"]:
        """As `forward`, with a separate input for each head's queries, keys and values."""
        pattern = "batch token head d_model, head d_model d_head -> batch token head d_head"
        q = einsum(pattern, q_input, self.W_Q) + self.b_Q
        k = einsum(pattern, k_input, self._weight(1)) + self._part_bias(1)
        v = einsum(pattern, v_input, self._weight(2)) + self._part_bias(2)
        return self.mix(q, k, v, terms, gate)

    def mix(
        self,
        q: Float[Tensor, "batch token head d_head"],
        k: Float[Tensor, "batch token kv_head d_head"],
        v: Float[Tensor, "batch token kv_head d_head"],
        terms: AttentionTerms = NO_TERMS,
        gate: Float[Tensor, "batch token head d_head"] | None = None,
    ) -> Float[Tensor, "batch token head d_head"]:
        """From queries, keys, values and, in a gated attention, `gate_values` to `z`."""
        if self.v_norm is not None and self.hook_v_pre is not None:
            v = self.v_norm(self.hook_v_pre(v))
        z = self.attend(q, k, v, terms)
        if self.hook_z_pre is not None:
            z = self.hook_z_pre(z)
        if self.ln is not None:
            z = self.ln(z.flatten(-2)).unflatten(-1, (self.n_heads, self.d_head))
        if self.hook_gate is not None:
            z = z * self.hook_gate(self._needed(gate))
        return self.hook_z(z)

    def gate_values(self, x: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes head d_head"] | None:
        """What the mix of values is multiplied by, from the normed residual stream; `None` without a gate."""
        if self.gate is None:
            return None
        return self.gate(x).sigmoid().unflatten(-1, (self.n_heads, self.d_head))

    @staticmethod
    def _needed(gate: Tensor | None) -> Tensor:
        if gate is None:
            raise ValueError("this attention is gated: pass gate=block.attn.gate_values(normed residual stream)")
        return gate

    def queries_keys_values(
        self, x: Float[Tensor, "batch token d_model"], queries: slice
    ) -> tuple[
        Float[Tensor, "batch query head d_head"],
        Float[Tensor, "batch token kv_head d_head"],
        Float[Tensor, "batch token kv_head d_head"],
    ]:
        """Queries of some of the tokens, keys and values of all tokens, past the hook points."""
        weight, bias, width = stored_weight(self.qkv), self._full_bias(), self.n_heads * self.d_head
        q = F.linear(x[:, queries], weight[:width], None if bias is None else bias[:width])
        kv = F.linear(x, weight[width:], None if bias is None else bias[width:])
        k, v = kv.unflatten(-1, (2, self.n_key_value_heads, self.d_head)).unbind(2)
        v = v if self.v_norm is None else self.v_norm.fused(v)
        return q.unflatten(-1, (self.n_heads, self.d_head)), k, v

    def norm_z(
        self,
        z_pre: Float[Tensor, "*axes head d_head"],
        gate: Float[Tensor, "*#axes head d_head"] | None = None,
    ) -> Float[Tensor, "*axes head d_head"]:
        """From the mix of values to `z`, past the hook points; equal if there is no norm or gate between them."""
        if self.ln is not None:
            z_pre = self.ln.fused(z_pre.flatten(-2)).unflatten(-1, (self.n_heads, self.d_head))
        return z_pre if self.gate is None else z_pre * self._needed(gate)

    def project(self, z: Float[Tensor, "*axes head d_head"]) -> Float[Tensor, "*axes d_model"]:
        """All heads through W_O at once, with the bias."""
        return self.out(z.flatten(-2))

    def project_heads(self, z: Float[Tensor, "*axes head d_head"]) -> Float[Tensor, "*axes head d_model"]:
        """Each head through its own part of W_O, without the bias."""
        return torch.einsum("...hd,hdm->...hm", z, self.W_O)

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The stored rows, or what they make, as queries, keys and values, each with an axis of heads at the end."""
        if self.n_key_value_heads == self.n_heads:
            q, k, v = qkv.unflatten(-1, (3, self.n_heads, self.d_head)).unbind(-3)
            return q, k, v
        heads = (self.n_heads, self.n_key_value_heads, self.n_key_value_heads)
        parts = qkv.split([n_heads * self.d_head for n_heads in heads], dim=-1)
        q, k, v = (part.unflatten(-1, (-1, self.d_head)) for part in parts)
        return q, k, v

    def _weight(self, index: int) -> Float[Tensor, "kv_head d_model d_head"]:
        """The stored heads of queries (0), keys (1) or values (2)."""
        return self._split(stored_weight(self.qkv).T)[index].transpose(0, 1)

    def _full_bias(self) -> Tensor | None:
        return self.qkv.full_bias() if isinstance(self.qkv, QKV) else self.qkv.bias

    def _part_bias(self, index: int) -> Float[Tensor, "kv_head d_head"]:
        bias = self._full_bias()
        if bias is None:
            return self.qkv.weight.new_zeros(self.n_key_value_heads if index else self.n_heads, self.d_head)
        return self._split(bias)[index]

    def for_query_heads(self, per_head: Float[Tensor, "..."], dim: int = 0) -> Float[Tensor, "..."]:
        """Values of the key and value heads, repeated for the query heads that share them."""
        n_sharing = self.n_heads // self.n_key_value_heads
        return per_head if n_sharing == 1 else per_head.repeat_interleave(n_sharing, dim)

    def reading(
        self, kind: Literal["q", "k", "v"]
    ) -> tuple[Float[Tensor, "kv_head d_model d_head"], Float[Tensor, "kv_head d_head"]]:
        """Weights and biases that make `hook_q`, `hook_k` or `hook_v`: one per stored head, where heads share them."""
        index = "qkv".index(kind)
        return self._weight(index), self._part_bias(index)

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        """Query weights, a view of the stored weight."""
        return self._weight(0)

    @property
    def W_K(self) -> Float[Tensor, "head d_model d_head"]:
        """Key weights of each query head: a view of the stored weight, or copies if heads share their keys."""
        return self.for_query_heads(self._weight(1))

    @property
    def W_V(self) -> Float[Tensor, "head d_model d_head"]:
        """Value weights of each query head: a view of the stored weight, or copies if heads share their values."""
        return self.for_query_heads(self._weight(2))

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """Output weights, a view of the stored weight; with the heads flattened, its rows are value vectors."""
        return rearrange(stored_weight(self.out), "d_model (head d_head) -> head d_head d_model", head=self.n_heads)

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:
        """Query bias; zeros if the model has none."""
        return self._part_bias(0)

    @property
    def b_K(self) -> Float[Tensor, "head d_head"]:
        """Key bias of each query head; zeros if the model has none."""
        return self.for_query_heads(self._part_bias(1))

    @property
    def b_V(self) -> Float[Tensor, "head d_head"]:
        """Value bias of each query head; zeros if the model has none."""
        return self.for_query_heads(self._part_bias(2))

    @property
    def b_O(self) -> Float[Tensor, "d_model"]:
        """Output bias; zeros if the model has none."""
        return self.out.weight.new_zeros(self.d_model) if self.out.bias is None else self.out.bias

    @property
    def QK(self) -> FactoredMatrix:
        """`W_Q W_Kᵀ` of each head: which directions of the stream attend to which, [head d_model d_model], factored.

        With rotary positions this is what tokens at the same place would give: the rotations come between the two.
        """
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """`W_V W_O` of each head: what is written when a token is attended to, [head d_model d_model], factored."""
        return FactoredMatrix(self.W_V, self.W_O)
