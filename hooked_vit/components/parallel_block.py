"""A block whose attention and MLP run side by side: both read its input, and both add to it."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hooked_vit.components.attention_terms import NO_TERMS, AttentionTerms
from hooked_vit.components.block import Block
from hooked_vit.components.several_block import SeveralBlock
from hooked_vit.components.stored_weight import stored_weight
from hooked_vit.config import HookedViTConfig
from hooked_vit.hook_point import is_only_read, is_watched


class ParallelBlock(Block):
    """`resid_post = resid_pre + attn_out + mlp_out`, where `attn_out = ls1 * attn(ln1(resid_pre))` and
    `mlp_out = ls1 * mlp(ln1(resid_pre))` (Dehghani et al. 2023, arXiv 2302.05442).

    There is one norm, `ln1`, and one LayerScale, `ls1`, for both, and no `hook_resid_mid`. The other hook points are
    those of `Block`; `hook_mlp_in` is a copy of `resid_pre` that only the MLP reads.

    While no hook edits what attention or the MLP writes, the two outputs are added before LayerScale, as in the
    original, whose last bits this gives; `attn_out` and `mlp_out` are computed in addition if they are read. If the
    original has one output projection for both (`fused_out`), `attn.W_O` and `mlp.W_out` are its columns, and its one
    bias counts as attention's, by convention: `mlp.b_out` is zero.
    """

    def __init__(self, cfg: HookedViTConfig, layer: int = 0):
        super().__init__(cfg, layer)
        self.fused_out = cfg.fused_out

    def forward(
        self, residual: Float[Tensor, "batch token d_model"], terms: AttentionTerms = NO_TERMS
    ) -> Float[Tensor, "batch token d_model"]:
        """From `resid_pre` to `resid_post`. `terms` are what attention takes besides the stream, in this layer."""
        residual = self.hook_resid_pre(residual)
        normed = self.ln1(residual)
        z = self._z(residual, normed, terms)
        post = self.mlp.activations(self._mlp_input(residual, normed))
        points = (self.attn.hook_result, self.hook_attn_out, self.hook_mlp_out)
        are_read, are_edited = any(map(is_watched, points)), not all(map(is_only_read, points))
        attn, mlp = (None, None) if self.fused_out else (self.attn.project(z), self.mlp.out(post))
        attn_out = mlp_out = None
        if are_read or are_edited:
            attn_out = self.hook_attn_out(self._attn_out(z, attn))
            mlp_out = self.hook_mlp_out(self._with_scale(self.mlp.out(post) if mlp is None else mlp))
        if are_edited and attn_out is not None and mlp_out is not None:
            return self.hook_resid_post(residual + (attn_out + mlp_out))
        together = self._projected_together(z, post) if attn is None or mlp is None else attn + mlp
        return self.hook_resid_post(residual + self._with_scale(together))

    def _mlp_input(self, residual: Tensor, normed: Tensor) -> Tensor:
        if is_only_read(self.hook_mlp_in):
            if is_watched(self.hook_mlp_in):
                self.hook_mlp_in(residual)
            return normed
        edited = self.ln1.fused(self.hook_mlp_in(residual))
        if is_only_read(self.ln1.hook_scale) and is_only_read(self.ln1.hook_normalized):
            return edited
        # the norm's hook points see the unedited stream; the edit of the input enters as a difference from it
        return normed + (edited - self.ln1.fused(residual))

    def _projected_together(self, z: Tensor, post: Tensor) -> Tensor:
        """Both outputs by one product, as in an original with one projection."""
        weight = torch.cat([stored_weight(self.attn.out), stored_weight(self.mlp.out)], dim=1)
        return F.linear(torch.cat([z.flatten(-2), post], dim=-1), weight, self.attn.out.bias)

    def _with_scale(self, out: Tensor) -> Tensor:
        return out if self.ls1 is None else out * self.ls1

    def resume(
        self,
        stream: str,
        given: Mapping[str, Tensor],
        kept: slice = slice(None),
        terms: AttentionTerms = NO_TERMS,
    ) -> Float[Tensor, "batch kept d_model"]:
        """As `Block.resume`; see `hooked_vit.resuming.resumable` for what else is needed.

        What the other sub-layer adds is given, because neither reads what the other writes.
        """
        residual = given["resid_pre"][:, kept]
        if stream in ("post", "mlp_out"):
            attn_out = given["attn_out"][:, kept]
            mlp_out = given["mlp_out"][:, kept] if stream == "mlp_out" else self.write_mlp(given["post"][:, kept])
        else:
            attn_out = self._attn_out_from(stream, given, kept, terms)
            if stream == "resid_pre":
                mlp_out = self.write_mlp(self.mlp.neurons(self.ln1.fused(residual)))
            else:
                mlp_out = given["mlp_out"][:, kept]
        return residual + (attn_out + mlp_out)


def made_block(cfg: HookedViTConfig, layer: int) -> Block | SeveralBlock:
    """The block of a layer, of the kind that the config describes."""
    if cfg.n_parallel > 1:
        return SeveralBlock(cfg, layer)
    return ParallelBlock(cfg, layer) if cfg.parallel_attn_mlp else Block(cfg, layer)
