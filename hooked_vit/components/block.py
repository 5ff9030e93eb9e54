"""A transformer block: two sub-layers, and exactly what each of them adds to the residual stream."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooked_vit.components.attention import Attention
from hooked_vit.components.mlp import Mlp
from hooked_vit.components.norm import Norm
from hooked_vit.config import HookedViTConfig
from hooked_vit.hook_point import HookPoint, is_only_read, is_watched


class Block(nn.Module):
    """`resid_mid = resid_pre + attn_out`, `resid_post = resid_mid + mlp_out`.

    In a pre-norm block `attn_out = ls1 * attn(ln1(resid_pre))`, in a post-norm block `attn_out = ln1(attn(resid_pre))`;
    likewise for the MLP with `ls2` and `ln2`. `hook_attn_out` and `hook_mlp_out` are what is added, in both.

    `attn.hook_result` is each head's share of `attn_out`: `z W_O` times LayerScale; in a post-norm block centred,
    divided by the norm's scale for all heads together and weighted. The shares and `attn_out_bias` sum to `attn_out`.
    `hook_q_input`, `hook_k_input`, `hook_v_input` [batch token head d_model] and `hook_mlp_in` [batch token d_model]
    are copies of the stream in front of the norms: an edit reaches one reader and leaves the stream as it is.
    """

    def __init__(self, cfg: HookedViTConfig):
        super().__init__()
        self.n_heads, self.post_norm = cfg.n_heads, cfg.post_norm
        self.ln1 = Norm(cfg.d_model, cfg.block_norm)
        self.attn = Attention(cfg)
        self.ls1 = nn.Parameter(torch.ones(cfg.d_model)) if cfg.layer_scale else None
        self.ln2 = Norm(cfg.d_model, cfg.block_norm)
        self.mlp = Mlp.of_block(cfg)
        self.ls2 = nn.Parameter(torch.ones(cfg.d_model)) if cfg.layer_scale else None
        self.hook_resid_pre = HookPoint()
        self.hook_q_input = HookPoint()
        self.hook_k_input = HookPoint()
        self.hook_v_input = HookPoint()
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.hook_mlp_in = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(
        self, residual: Float[Tensor, "batch token d_model"], mask: Float[Tensor, "batch 1 1 key"] | None = None
    ) -> Float[Tensor, "batch token d_model"]:
        """One block further. `mask` is added to the attention scores."""
        residual = self.hook_resid_pre(residual)
        attn_out = self.hook_attn_out(self._attn_out(self._z(residual, mask)))
        residual = self.hook_resid_mid(residual + attn_out)
        # a copy: an edit in place must not reach the stream
        mlp_in = self.hook_mlp_in(residual.clone()) if is_watched(self.hook_mlp_in) else residual
        mlp_out = self.hook_mlp_out(self._mlp_out(mlp_in))
        return self.hook_resid_post(residual + mlp_out)

    def _z(self, residual: Tensor, mask: Tensor | None) -> Tensor:
        points = (self.hook_q_input, self.hook_k_input, self.hook_v_input)
        per_head = residual.unsqueeze(-2).expand(-1, -1, self.n_heads, -1)
        if all(is_only_read(point) for point in points):
            for point in filter(is_watched, points):
                point(per_head)
            return self.attn(residual if self.post_norm else self.ln1(residual), mask)
        # clones, so that an edit in place of one input does not reach the others
        q, k, v = (point(per_head.clone()) for point in points)
        if not self.post_norm:
            # the norm's own points see the stream, as ever; an edited input passes as its difference from it
            normed, unedited = self.ln1(residual).unsqueeze(-2), self.ln1.fused(residual).unsqueeze(-2)
            q, k, v = (normed + (self.ln1.fused(x) - unedited) for x in (q, k, v))
        return self.attn.forward_split(q, k, v, mask)

    def _attn_out(self, z: Tensor) -> Tensor:
        out, hook_result = self.attn.project(z), self.attn.hook_result
        watched = is_watched(hook_result)
        scale_is_edited = self.post_norm and not is_only_read(self.ln1.hook_scale)
        if not watched or (is_only_read(hook_result) and not scale_is_edited):
            if watched:
                hook_result(self.head_results(z, self.ln1.scale(out) if self.post_norm else None))
            if self.post_norm:
                return self.ln1(out)
            return out if self.ls1 is None else out * self.ls1
        scale = self.ln1.hook_scale(self.ln1.scale(out)) if self.post_norm else None
        out = hook_result(self.head_results(z, scale)).sum(dim=-2) + self.attn_out_bias(scale)
        return self.ln1.hook_normalized(out) if self.post_norm else out

    def _mlp_out(self, residual: Tensor) -> Tensor:
        if self.post_norm:
            return self.ln2(self.mlp(residual))
        out = self.mlp(self.ln2(residual))
        return out if self.ls2 is None else out * self.ls2

    def head_results(
        self, z: Float[Tensor, "*axes head d_head"], scale: Float[Tensor, "*axes 1"] | None = None
    ) -> Float[Tensor, "*axes head d_model"]:
        """What each head adds to the residual stream. A post-norm block needs the `scale` of its `ln1`."""
        results = self.attn.project_heads(z)
        if self.post_norm:
            assert scale is not None, "a head's result in a post-norm block depends on the scale of ln1"
            return self.ln1.divide(results, scale.unsqueeze(-2), bias=False)
        return results if self.ls1 is None else results * self.ls1

    def attn_out_bias(self, scale: Float[Tensor, "*axes 1"] | None = None) -> Float[Tensor, "*axes d_model"]:
        """The part of `attn_out` that no head writes."""
        return self._written_bias(self.attn.b_O, self.ln1, self.ls1, scale)

    def mlp_out_bias(self, scale: Float[Tensor, "*axes 1"] | None = None) -> Float[Tensor, "*axes d_model"]:
        """The part of `mlp_out` that no neuron writes."""
        return self._written_bias(self.mlp.b_out, self.ln2, self.ls2, scale)

    def _written_bias(self, bias: Tensor, norm: Norm, layer_scale: Tensor | None, scale: Tensor | None) -> Tensor:
        if self.post_norm:
            assert scale is not None, "what a bias adds in a post-norm block depends on the norm's scale"
            return norm.divide(bias, scale)
        return bias if layer_scale is None else bias * layer_scale
