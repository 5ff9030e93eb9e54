"""A transformer block: two sub-layers, and exactly what each of them adds to the residual stream."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooked_vit.components.attention import Attention
from hooked_vit.components.attention_terms import NO_TERMS, AttentionTerms
from hooked_vit.components.differential_attention import DifferentialAttention
from hooked_vit.components.mlp import Mlp
from hooked_vit.components.norm import Norm
from hooked_vit.config import HookedViTConfig
from hooked_vit.hook_point import HookPoint, is_only_read, is_watched


class Block(nn.Module):
    """`resid_mid = resid_pre + attn_out`, `resid_post = resid_mid + mlp_out`.

    In a pre-norm block `attn_out = ls1 * attn(ln1(resid_pre))`, in a post-norm block `attn_out = ln1(attn(resid_pre))`;
    likewise for the MLP with `ls2` and `ln2`. A sandwich block norms both: `attn_out = ln1_post(attn(ln1(resid_pre)))`,
    `mlp_out = ln2_post(mlp(ln2(resid_mid)))`. `hook_attn_out` and `hook_mlp_out` are what is added, in both.

    `attn.hook_result` is each head's share of `attn_out`: `z W_O` times LayerScale; if what is written is
    normed, centred, divided by the norm's scale for all heads together and weighted. The shares and `attn_out_bias`
    sum to `attn_out`.
    `hook_q_input`, `hook_k_input`, `hook_v_input` [batch token head d_model] and `hook_mlp_in` [batch token d_model]
    are copies of the stream before the norms: an edit reaches one reader and leaves the stream unchanged.

    `write_attn`, `write_mlp` and `resume` compute the same past the hook points.
    """

    def __init__(self, cfg: HookedViTConfig, layer: int = 0):
        super().__init__()
        self.n_heads, self.post_norm = cfg.n_heads, cfg.post_norm
        self.ln1 = Norm(cfg.d_model, cfg.block_norm, input_is_cached=not cfg.post_norm)
        self.attn = Attention(cfg, layer) if cfg.differential is None else DifferentialAttention(cfg, layer)
        self.ls1 = nn.Parameter(torch.ones(cfg.d_model)) if cfg.layer_scale else None
        has_two = not cfg.parallel_attn_mlp  # norms and LayerScales
        self.ln2 = Norm(cfg.d_model, cfg.block_norm, input_is_cached=not cfg.post_norm) if has_two else None
        self.mlp = Mlp.from_config(cfg)
        self.ls2 = nn.Parameter(torch.ones(cfg.d_model)) if has_two and cfg.layer_scale is True else None
        self.ln1_post = Norm(cfg.d_model, cfg.block_norm) if cfg.sandwich_norm else None
        self.ln2_post = Norm(cfg.d_model, cfg.block_norm) if cfg.sandwich_norm else None
        self.hook_resid_pre = HookPoint()
        self.hook_q_input = HookPoint()
        self.hook_k_input = HookPoint()
        self.hook_v_input = HookPoint()
        self.hook_attn_out = HookPoint()
        if has_two:
            self.hook_resid_mid = HookPoint()
        self.hook_mlp_in = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(
        self, residual: Float[Tensor, "batch token d_model"], terms: AttentionTerms = NO_TERMS
    ) -> Float[Tensor, "batch token d_model"]:
        """From `resid_pre` to `resid_post`. `terms` are what attention takes besides the stream, in this layer."""
        residual = self.hook_resid_pre(residual)
        normed = residual if self.post_norm else self.ln1(residual)
        attn_out = self.hook_attn_out(self._attn_out(self._z(residual, normed, terms)))
        residual = self.hook_resid_mid(residual + attn_out)
        mlp_in = self.hook_mlp_in(residual)
        mlp_out = self.hook_mlp_out(self._mlp_out(mlp_in))
        return self.hook_resid_post(residual + mlp_out)

    @property
    def mlp_ln(self) -> Norm:
        """The norm of the MLP: `ln2`, or `ln1` where attention and MLP read through one norm."""
        return self.ln1 if self.ln2 is None else self.ln2

    @property
    def mlp_ls(self) -> Tensor | None:
        """The LayerScale of the MLP, if it has one: `ls2`, or `ls1` where attention and MLP share it."""
        return self.ls1 if self.ln2 is None else self.ls2

    @property
    def scaled_W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """What heads write to the stream with, in a pre-norm block: `W_O` times LayerScale."""
        return self.attn.W_O if self.ls1 is None else self.attn.W_O * self.ls1

    @property
    def scaled_W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        """What neurons write to the stream with, in a pre-norm block: `W_out` times LayerScale."""
        return self.mlp.W_out if self.mlp_ls is None else self.mlp.W_out * self.mlp_ls

    def _z(self, residual: Tensor, normed: Tensor, terms: AttentionTerms) -> Tensor:
        points = (self.hook_q_input, self.hook_k_input, self.hook_v_input)
        n_shared = self.attn.n_key_value_heads
        heads = (self.n_heads, n_shared, n_shared)
        per_head = [residual.unsqueeze(-2).expand(-1, -1, n_heads, -1) for n_heads in heads]
        if all(is_only_read(point) for point in points):
            for point, copies in zip(points, per_head, strict=True):
                if is_watched(point):
                    point(copies)
            return self.attn(normed, terms)
        q, k, v = (point(copies) for point, copies in zip(points, per_head, strict=True))
        if not self.post_norm:
            # the norm's own hook points see the unedited stream; an edit of an input enters as a difference from it
            unedited = self.ln1.fused(residual).unsqueeze(-2)
            q, k, v = (normed.unsqueeze(-2) + (self.ln1.fused(x) - unedited) for x in (q, k, v))
        return self.attn.forward_split(q, k, v, terms, self.attn.gate_values(normed))

    def _attn_out(self, z: Tensor, projected: Tensor | None = None) -> Tensor:
        out, hook_result = self.attn.project(z) if projected is None else projected, self.attn.hook_result
        watched = is_watched(hook_result)
        norm, _ = self.write_norms
        scale_is_edited = norm is not None and not is_only_read(norm.hook_scale)
        if not watched or (is_only_read(hook_result) and not scale_is_edited):
            if watched:
                hook_result(self.head_results(z, None if norm is None else norm.scale(out)))
            return self._scaled(out, norm, self.ls1)
        scale = None if norm is None else norm.hook_scale(norm.scale(out))
        out = hook_result(self.head_results(z, scale)).sum(dim=-2) + self.attn_out_bias(scale)
        return out if norm is None else norm.hook_normalized(out)

    def _mlp_out(self, residual: Tensor) -> Tensor:
        out = self.mlp(residual if self.post_norm else self.mlp_ln(residual))
        return self._scaled(out, self.write_norms[1], self.mlp_ls)

    @property
    def write_norms(self) -> tuple[Norm | None, Norm | None]:
        """The norms whose outputs attention and the MLP add to the stream; `None` where there are none."""
        return (self.ln1, self.mlp_ln) if self.post_norm else (self.ln1_post, self.ln2_post)

    def _scaled(self, out: Tensor, norm: Callable[[Tensor], Tensor] | None, layer_scale: Tensor | None) -> Tensor:
        """What is added to the stream: a sub-layer's output after its norm or LayerScale."""
        if norm is not None:
            return norm(out)
        return out if layer_scale is None else out * layer_scale

    def write_attn(self, z: Float[Tensor, "*axes head d_head"]) -> Float[Tensor, "*axes d_model"]:
        """`attn_out` of a given `z`, past the hook points.

        With a norm inside the attention, `z` is its output; `block.attn.norm_z` computes that from the mix of values.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> _, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64), names_filter=["z", "attn_out"])
        >>> torch.equal(model.blocks[5].write_attn(cache["z", 5]), cache["attn_out", 5])
        True
        """
        norm, _ = self.write_norms
        return self._scaled(self.attn.project(z), None if norm is None else norm.fused, self.ls1)

    def write_mlp(self, post: Float[Tensor, "*axes d_mlp"]) -> Float[Tensor, "*axes d_model"]:
        """`mlp_out` of given neurons (`post`), past the hook points.

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> _, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64), names_filter=["post", "mlp_out"])
        >>> torch.equal(model.blocks[5].write_mlp(cache["post", 5]), cache["mlp_out", 5])
        True
        """
        _, norm = self.write_norms
        return self._scaled(self.mlp.out(post), None if norm is None else norm.fused, self.mlp_ls)

    def resume(
        self,
        stream: str,
        given: Mapping[str, Tensor],
        kept: slice = slice(None),
        terms: AttentionTerms = NO_TERMS,
    ) -> Float[Tensor, "batch kept d_model"]:
        """`resid_post` at some of the tokens, computed from an activation inside the block, past the hook points.

        Args:
            stream: The activation, by its short name: `resid_pre`, `q`, `k`, `v`, `pattern`, `z`, `attn_out`,
                `resid_mid`, `post` or `mlp_out`.
            given: That activation and what else is needed (see `hooked_vit.resuming.RESUMABLE`), by short name. A
                batch axis of length one is broadcast.
            kept: The tokens to compute. Values of per-token activations may be narrowed to them already if they are
                the first tokens, except for `resid_pre`, `k` and `v`.
            terms: What attention takes besides the stream, in this layer (see `HookedViT.attention_terms`).

        >>> model = HookedViT.from_pretrained("emoji-vit")
        >>> _, cache = model.run_with_cache(torch.zeros(1, 3, 64, 64))
        >>> given = {"z": cache["z", 5], "resid_pre": cache["resid_pre", 5]}
        >>> torch.allclose(model.blocks[5].resume("z", given), cache["resid_post", 5], atol=1e-5)
        True
        """
        if stream in ("resid_mid", "post", "mlp_out"):
            middle = given["resid_mid"][:, kept]
        else:
            middle = given["resid_pre"][:, kept] + self._attn_out_from(stream, given, kept, terms)
        if stream == "mlp_out":
            return middle + given["mlp_out"][:, kept]
        if stream == "post":
            return middle + self.write_mlp(given["post"][:, kept])
        return middle + self.write_mlp(self.mlp.neurons(middle if self.post_norm else self.mlp_ln.fused(middle)))

    def _attn_out_from(self, stream: str, given: Mapping[str, Tensor], kept: slice, terms: AttentionTerms) -> Tensor:
        if stream == "attn_out":
            return given["attn_out"][:, kept]
        if stream == "z":
            return self.write_attn(given["z"][:, kept])
        attn = self.attn
        if stream == "pattern":
            v = attn.for_query_heads(given["v"], dim=2)
            z_pre = (given["pattern"][:, :, kept] @ v.transpose(1, 2)).transpose(1, 2)
        elif stream == "resid_pre":
            normed = self._normed(given["resid_pre"])
            z_pre = attn.attend_unhooked(*attn.queries_keys_values(normed, kept), attn.fused, terms, kept)
        else:
            q, k, v = (given[name].expand(len(given[stream]), -1, -1, -1) for name in "qkv")
            z_pre = attn.attend_unhooked(q[:, kept], k, v, attn.fused, terms, kept)
        gate = None if attn.gate is None else attn.gate_values(self._normed(given["resid_pre"][:, kept]))
        return self.write_attn(attn.norm_z(z_pre, gate))

    def _normed(self, residual: Tensor) -> Tensor:
        """What attention reads, past the hook points."""
        return residual if self.post_norm else self.ln1.fused(residual)

    def head_results(
        self, z: Float[Tensor, "*axes head d_head"], scale: Float[Tensor, "*axes 1"] | None = None
    ) -> Float[Tensor, "*axes head d_model"]:
        """What each head adds to the residual stream. A block that norms what it writes needs that norm's `scale`."""
        results, (norm, _) = self.attn.project_heads(z), self.write_norms
        if norm is not None:
            assert scale is not None, "a head's result depends on the scale of the norm of what is written"
            return norm.divide(results, scale.unsqueeze(-2), bias=False)
        return results if self.ls1 is None else results * self.ls1

    def attn_out_bias(self, scale: Float[Tensor, "*axes 1"] | None = None) -> Float[Tensor, "*axes d_model"]:
        """The part of `attn_out` that comes from biases rather than heads."""
        return self._written_bias(self.attn.b_O, self.write_norms[0], self.ls1, scale)

    def mlp_out_bias(self, scale: Float[Tensor, "*axes 1"] | None = None) -> Float[Tensor, "*axes d_model"]:
        """The part of `mlp_out` that comes from biases rather than neurons."""
        return self._written_bias(self.mlp.b_out, self.write_norms[1], self.mlp_ls, scale)

    def _written_bias(
        self, bias: Tensor, norm: Norm | None, layer_scale: Tensor | None, scale: Tensor | None
    ) -> Tensor:
        if norm is not None:
            assert scale is not None, "what a bias adds depends on the scale of the norm of what is written"
            return norm.divide(bias, scale)
        return bias if layer_scale is None else bias * layer_scale
