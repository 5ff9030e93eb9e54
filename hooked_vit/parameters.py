"""The weights under TransformerLens's names, stacked over layers, and the sum of the biases."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import FactoredMatrix

from hooked_vit.components.differential_attention import TWO_QK
from hooked_vit.components.embed import Embed
from hooked_vit.components.several_block import several_sublayers
from hooked_vit.config import HookedViTConfig
from hooked_vit.other_names import OTHER_NAMES


class Parameters(nn.Module):
    """Names for a HookedViT's weights. A block's own matrices are views; the stacked matrices here are copies."""

    cfg: HookedViTConfig
    embed: Embed
    blocks: Any  # an nn.ModuleList of Block

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        """As for any module; an error about a name of TransformerLens or timm says what to use instead."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in OTHER_NAMES:
                raise
            raise AttributeError(f"a HookedViT has no '{name}': {OTHER_NAMES[name]}", name=name, obj=self) from None

    def _stack(self, part: str, name: str) -> Tensor:
        if self.cfg.n_parallel > 1:
            raise ValueError(f"no '{name}' of a layer: {several_sublayers(self.cfg.n_parallel)}")
        return torch.stack([getattr(getattr(block, part), name) for block in self.blocks])

    @property
    def W_E(self) -> Float[Tensor, "pixel d_model"]:
        """Patch projection: pixels in the order channel, row, column.

        A view of the stored weight, or a copy if that is stored in another order (`cfg.linear_patches`).

        Behind a stem the "pixels" are the numbers of a patch of its feature map (`hook_stem`), which are not linear in
        the pixels of the image.

        Raises:
            AttributeError: If the stem writes the tokens without a projection.
        """
        linear, (height, width) = self.cfg.linear_patches, self.cfg.patch_size
        if linear is not None:
            order = "row column channel" if linear.channels_last else "channel row column"
            pattern = f"d_model ({order}) -> (channel row column) d_model"
            return rearrange(self._patch.weight, pattern, row=height, column=width)
        return rearrange(self._patch.weight, "d_model channel row column -> (channel row column) d_model")

    @property
    def b_E(self) -> Float[Tensor, "d_model"]:
        """Bias of the patch projection; zeros if it has none. Raises AttributeError if there is no projection."""
        bias = self._patch.bias
        return self._patch.weight.new_zeros(self.cfg.d_model) if bias is None else bias

    @property
    def _patch(self) -> nn.Conv2d | nn.Linear:
        if self.embed.patch is None:
            raise AttributeError
        return self.embed.patch

    @property
    def W_pos(self) -> Float[Tensor, "position d_model"]:
        """Position embedding as stored: one row per token, or per patch if `cfg.positions` is `"patches"`.

        Positions that are the sum of a row's and a column's vector are stored as `embed.pos_rows` and
        `embed.pos_columns`; these are the sums at the model's own image size, a copy.

        Raises:
            AttributeError: If the model has no position embedding.
        """
        if self.cfg.positions == "axes":
            positions = self.embed.positions(self.cfg.token_layout)
            assert positions is not None
            return positions[self.cfg.token_layout.patches]
        if self.embed.pos is None:
            raise AttributeError
        return self.embed.pos

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Query weights."""
        return self._stack("attn", "W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Key weights of each query head; heads that share their keys have equal ones."""
        return self._stack("attn", "W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Value weights of each query head; heads that share their values have equal ones."""
        return self._stack("attn", "W_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        """Output weights of attention, as stored: without LayerScale."""
        return self._stack("attn", "W_O")

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        """Query biases."""
        return self._stack("attn", "b_Q")

    @property
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        """Key biases of each query head; zeros if keys have none."""
        return self._stack("attn", "b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer head d_head"]:
        """Value biases of each query head."""
        return self._stack("attn", "b_V")

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        """Output biases of attention."""
        return self._stack("attn", "b_O")

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """Input weights of the MLPs; of gated MLPs, those of the linear half."""
        return self._stack("mlp", "W_in")

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """Gate weights of gated MLPs. Raises AttributeError if the model has none."""
        return self._stack("mlp", "W_gate")

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        """Output weights of the MLPs, as stored: without LayerScale."""
        return self._stack("mlp", "W_out")

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        """Input biases of the MLPs."""
        return self._stack("mlp", "b_in")

    @property
    def b_gate(self) -> Float[Tensor, "layer d_mlp"]:
        """Gate biases of gated MLPs. Raises AttributeError if the model has none."""
        return self._stack("mlp", "b_gate")

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """Output biases of the MLPs."""
        return self._stack("mlp", "b_out")

    @property
    def QK(self) -> FactoredMatrix:
        """`W_Q W_Kᵀ` of each query head, [layer head d_model d_model], factored; rotations come between the two.

        Raises ValueError for differential attention, whose heads have two.
        """
        if self.cfg.differential is not None:
            raise ValueError(TWO_QK)
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """`W_V W_O` of each query head, [layer head d_model d_model], factored."""
        return FactoredMatrix(self.W_V, self.W_O)

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, "d_model"]:
        """Sum of the sub-layers' output biases (LayerScale applied) before `layer`.

        Raises:
            ValueError: If the blocks norm what they write: what a bias adds then depends on the token.
        """
        if self.cfg.write_norms is not None:
            raise ValueError(
                "these blocks norm what they write, so what a bias adds depends on the token: "
                "`cache.get_full_resid_decomposition` accounts for it"
            )
        if mlp_input and self.cfg.parallel_attn_mlp:
            raise ValueError("in this model attention and MLP of a block both read its input: leave out mlp_input")
        if not 0 <= layer <= self.cfg.n_layers:
            raise ValueError(f"layer {layer} is out of range: 0 to {self.cfg.n_layers}")
        total = self.embed.weight.new_zeros(self.cfg.d_model)
        for index, block in enumerate(self.blocks):
            if index < layer or (mlp_input and index == layer):
                total = total + block.attn_out_bias()
            if index < layer and include_mlp_biases:
                total = total + block.mlp_out_bias()
        return total
