"""A block of several attentions side by side, then several MLPs side by side, each with a norm of its own."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooked_vit.components.attention import Attention
from hooked_vit.components.attention_terms import NO_TERMS, AttentionTerms
from hooked_vit.components.mlp import Mlp
from hooked_vit.components.norm import Norm
from hooked_vit.config import HookedViTConfig
from hooked_vit.hook_point import HookPoint, is_only_read, is_watched

_OF_ONE = {
    "attn", "mlp", "ln1", "ln2", "ls1", "ls2", "mlp_ln", "mlp_ls", "scaled_W_O", "scaled_W_out", "write_attn",
    "write_mlp", "head_results",
}  # fmt: skip


def several_sublayers(n_parallel: int) -> str:
    """Why there is no such thing as the attention or the MLP of a block, and what to do."""
    return (
        f"a block of this model has {n_parallel} attentions ('attns.0', 'attns.1', ...), whose sum is 'hook_attn_out', "
        f"and {n_parallel} MLPs ('mlps.0', ...), each with its own norm: `model.fold_layer_norm()` is the same "
        "function as a model whose blocks have one attention and one MLP with all their heads and neurons"
    )


class AttentionBranch(Attention):
    """One of the attentions of a block: `ls * attn(ln_in(resid_pre))`, which `hook_out` holds.

    The hook points are those of `Attention`, those of its norm `ln_in`, and `hook_out` [batch token d_model].
    """

    def __init__(self, cfg: HookedViTConfig, layer: int = 0):
        super().__init__(cfg, layer)
        self.ln_in = Norm(cfg.d_model, cfg.block_norm, input_is_cached=True)
        self.ls = nn.Parameter(torch.ones(cfg.d_model)) if cfg.layer_scale else None
        self.hook_out = HookPoint()

    def written(
        self, residual: Float[Tensor, "batch token d_model"], terms: AttentionTerms = NO_TERMS
    ) -> Float[Tensor, "batch token d_model"]:
        """What this attention adds to the stream."""
        z = self(self.ln_in(residual), terms)
        if not is_watched(self.hook_result):
            return self.hook_out(_scaled(self.project(z), self.ls))
        results = self.hook_result(_scaled(self.project_heads(z), self.ls))
        if is_only_read(self.hook_result):
            return self.hook_out(_scaled(self.project(z), self.ls))
        return self.hook_out(results.sum(dim=-2) + _scaled(self.b_O, self.ls))

    def written_unhooked(
        self, residual: Float[Tensor, "batch token d_model"], kept: slice, terms: AttentionTerms = NO_TERMS
    ) -> Float[Tensor, "batch kept d_model"]:
        """As `written`, at some of the tokens, past the hook points."""
        normed = self.ln_in.fused(residual)
        z = self.attend_unhooked(*self.queries_keys_values(normed, kept), self.fused, terms, kept)
        return _scaled(self.project(self.norm_z(z)), self.ls)


class MlpBranch(Mlp):
    """One of the MLPs of a block: `ls * mlp(ln_in(resid_mid))`, which `hook_out` [batch token d_model] holds."""

    def __init__(self, cfg: HookedViTConfig):
        norms = cfg.mlp_inner_norm, cfg.block_norm
        super().__init__(cfg.d_model, cfg.d_mlp, cfg.act_fn, cfg.mlp_kind, cfg.gate_last, cfg.mlp_bias, *norms)
        self.ls = nn.Parameter(torch.ones(cfg.d_model)) if cfg.layer_scale else None
        self.hook_out = HookPoint()

    def written(self, residual: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """What this MLP adds to the stream."""
        return self.hook_out(_scaled(self(residual), self.ls))

    def written_unhooked(self, residual: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """As `written`, past the hook points."""
        return _scaled(self.out(self.neurons(residual)), self.ls)


class SeveralBlock(nn.Module):
    """`resid_mid = resid_pre + attn_out`, `resid_post = resid_mid + mlp_out`, where `attn_out` is the sum of what
    several attentions write and `mlp_out` that of several MLPs (Touvron et al. 2022, arXiv 2203.09795).

    `attns.0.hook_pattern`, `attns.0.hook_out`, `mlps.0.hook_post` and so on are the hook points of each. All attentions
    read `resid_pre`, all MLPs `resid_mid`.
    """

    def __init__(self, cfg: HookedViTConfig, layer: int = 0):
        super().__init__()
        self.attns: Any = nn.ModuleList(AttentionBranch(cfg, layer) for _ in range(cfg.n_parallel))
        self.mlps: Any = nn.ModuleList(MlpBranch(cfg) for _ in range(cfg.n_parallel))
        self.hook_resid_pre = HookPoint()
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def __getattr__(self, name: str) -> Any:
        """As for any module; asking for the one attention, MLP or norm of a block raises ValueError."""
        if name in _OF_ONE:
            raise ValueError(f"no '{name}': {several_sublayers(len(self.attns))}")
        return super().__getattr__(name)

    def forward(
        self, residual: Float[Tensor, "batch token d_model"], terms: AttentionTerms = NO_TERMS
    ) -> Float[Tensor, "batch token d_model"]:
        """From `resid_pre` to `resid_post`. `terms` are what attention takes besides the stream, in this layer."""
        residual = self.hook_resid_pre(residual)
        attn_out = self.hook_attn_out(_sum(attn.written(residual, terms) for attn in self.attns))
        residual = self.hook_resid_mid(residual + attn_out)
        mlp_out = self.hook_mlp_out(_sum(mlp.written(residual) for mlp in self.mlps))
        return self.hook_resid_post(residual + mlp_out)

    def attn_out_bias(self) -> Float[Tensor, "d_model"]:
        """The part of `attn_out` that comes from biases rather than heads."""
        return _sum(_scaled(attn.b_O, attn.ls) for attn in self.attns)

    def mlp_out_bias(self) -> Float[Tensor, "d_model"]:
        """The part of `mlp_out` that comes from biases rather than neurons."""
        return _sum(_scaled(mlp.b_out, mlp.ls) for mlp in self.mlps)

    def resume(
        self,
        stream: str,
        given: Mapping[str, Tensor],
        kept: slice = slice(None),
        terms: AttentionTerms = NO_TERMS,
    ) -> Float[Tensor, "batch kept d_model"]:
        """As `Block.resume`, from `resid_pre`, `attn_out`, `resid_mid` or `mlp_out`."""
        if stream in ("resid_mid", "mlp_out"):
            middle = given["resid_mid"][:, kept]
        elif stream == "attn_out":
            middle = given["resid_pre"][:, kept] + given["attn_out"][:, kept]
        else:
            residual = given["resid_pre"]
            middle = residual[:, kept] + _sum(attn.written_unhooked(residual, kept, terms) for attn in self.attns)
        if stream == "mlp_out":
            return middle + given["mlp_out"][:, kept]
        return middle + _sum(mlp.written_unhooked(middle) for mlp in self.mlps)


def _scaled(out: Tensor, layer_scale: Tensor | None) -> Tensor:
    return out if layer_scale is None else out * layer_scale


def _sum(parts: Any) -> Tensor:
    return torch.stack(list(parts)).sum(dim=0)
