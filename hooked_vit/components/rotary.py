"""Rotary positions: the angles by which the queries and keys of each patch are rotated, by timm's own modules."""

from math import prod
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from timm import layers
from torch import Tensor, nn

from hooked_vit.components.gemma_rotary import GemmaAngles
from hooked_vit.config import HookedViTConfig
from hooked_vit.patch_sequences import PatchSequences
from hooked_vit.token_layout import TokenLayout


def made_rope(cfg: HookedViTConfig) -> nn.Module:
    """timm's module for the rotary positions of a model, on the CPU in float32.

    Raises:
        ValueError: If the model has no rotary positions.
    """
    rotary = cfg.rotary
    if rotary is None:
        raise ValueError("the model has no rotary positions: cfg.rotary is None")
    shared: dict[str, Any] = {"temperature": rotary.temperature, "grid_indexing": rotary.grid_indexing}
    on_grid = {**shared, "feat_shape": None if cfg.dynamic_image_size else cfg.position_grid}
    reference: Any = rotary.reference_grid
    # real buffers even where the model is made without storage; they are no weights, which would be loaded later
    with torch.device("cpu"), torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        if rotary.kind == "cat":
            return layers.RotaryEmbeddingCat(
                cfg.d_head,
                in_pixels=False,
                ref_feat_shape=reference,
                grid_offset=rotary.grid_offset,
                rotate_half=rotary.rotate_half,
                **on_grid,
            )
        if rotary.kind == "dinov3":
            return layers.RotaryEmbeddingDinoV3(
                cfg.d_head,
                grid_offset=rotary.grid_offset,
                rotate_half=rotary.rotate_half,
                normalize_coords=rotary.normalize_coords,
                min_period=rotary.min_period,
                max_period=rotary.max_period,
                **on_grid,
            )
        if rotary.kind == "gemma":
            return GemmaAngles(cfg.d_head, rotary.temperature)
        if rotary.kind == "mixed":
            width = cfg.n_heads * cfg.d_head
            return layers.RotaryEmbeddingMixed(width, cfg.n_layers, cfg.n_heads, **on_grid)
        return layers.RotaryEmbeddingMRope(cfg.d_head, mrope_section=rotary.mrope_section, **shared)


class Rotary(nn.Module):
    """The rotation of every token: by its place on the grid if it is a patch, none if it is a prefix token."""

    def __init__(self, cfg: HookedViTConfig):
        super().__init__()
        self.own_grid, self.dynamic = cfg.position_grid, cfg.dynamic_image_size
        self.n_prefix = cfg.token_layout.n_prefix
        self.rope = made_rope(cfg)

    def forward(
        self, layout: TokenLayout | PatchSequences
    ) -> Float[Tensor, "layer head token sin_cos"] | Float[Tensor, "layer batch head token sin_cos"]:
        """Sines, then cosines. Axes of layers and heads are of length one if all are rotated alike.

        Of sequences, those of each image on its own grid; padding is rotated to zero.
        """
        rope: Any = self.rope
        if isinstance(rope, GemmaAngles):
            return self._after_prefix(rope.of(layout))
        if isinstance(layout, PatchSequences):
            return self._after_prefix(self._of_sequences(layout))
        # timm computes the angles of a fixed grid once, in the dtype of the weights, those of other grids in float32
        angles = rope.get_embed(layout.grid) if self.dynamic or not hasattr(rope, "feat_shape") else rope.get_embed()
        if angles.ndim == 2:
            angles = angles[None, None]
        assert angles.shape[2] == prod(layout.grid), "angles of another grid"
        return self._after_prefix(angles)

    def _of_sequences(self, sequences: PatchSequences) -> Float[Tensor, "layer batch head patch sin_cos"]:
        from timm.models.naflexvit import NaFlexVit

        mixed = isinstance(self.rope, layers.RotaryEmbeddingMixed)
        vit: Any = SimpleNamespace(rope=self.rope, rope_is_mixed=mixed, num_prefix_tokens=0)
        angles: Any = NaFlexVit._generate_rope_naflex(vit, sequences.patches, sequences.coordinates)
        return torch.stack(list(angles)) if mixed else angles[None]

    def _after_prefix(self, angles: Float[Tensor, "*axes patch sin_cos"]) -> Float[Tensor, "*axes token sin_cos"]:
        if not self.n_prefix:
            return angles
        # a rotation by zero leaves a number as it is, to the bit
        sin = angles.new_zeros(*angles.shape[:-2], self.n_prefix, angles.shape[-1] // 2)
        return torch.cat([torch.cat([sin, torch.ones_like(sin)], dim=-1), angles], dim=-2)
