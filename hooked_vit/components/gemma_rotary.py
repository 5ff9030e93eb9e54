"""Gemma 4's rotary positions: the first half of a head is rotated by a patch's column, the second by its row."""

from typing import Any

import torch
from jaxtyping import Float, Int
from timm.models.gemma4_vit import Gemma4RotaryEmbedding2D
from torch import Tensor, nn

from hooked_vit.patch_sequences import PatchSequences
from hooked_vit.token_layout import TokenLayout


def rotate_each_half(
    x: Float[Tensor, "batch head token d_head"], rotation: Float[Tensor, "*#axes token sin_cos"]
) -> Float[Tensor, "batch head token d_head"]:
    """Rotate each half of a head: a number together with the one a quarter of a head away.

    >>> turned = rotate_each_half(torch.arange(4.0).view(1, 1, 1, 4), torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 0]]))
    >>> turned.flatten().tolist()
    [-1.0, 0.0, -3.0, 2.0]
    """
    sin, cos = rotation.chunk(2, dim=-1)
    first, second = x.unflatten(-1, (2, 2, -1)).unbind(-2)
    return x * cos + torch.stack([-second, first], dim=-2).flatten(-3) * sin


class GemmaAngles(nn.Module):
    """timm's module, as a module of angles by grid."""

    def __init__(self, d_head: int, theta: float):
        super().__init__()
        self.rotary_emb = Gemma4RotaryEmbedding2D(d_head, theta)

    def of(
        self, layout: TokenLayout | PatchSequences
    ) -> Float[Tensor, "1 1 patch sin_cos"] | Float[Tensor, "1 batch 1 patch sin_cos"]:
        """Sines, then cosines, for each patch."""
        if isinstance(layout, PatchSequences):
            return self._at(layout.coordinates)[None, :, None]
        return self._at(layout.positions[None])[None]

    def _at(self, places: Int[Tensor, "batch patch 2"]) -> Float[Tensor, "batch patch sin_cos"]:
        rotary: Any = self.rotary_emb
        frequencies = rotary.inv_freq  # they have the dtype and device of the model
        cos, sin = rotary(frequencies, places.to(frequencies.device).flip(-1))  # Gemma's places are (column, row)
        return torch.cat([sin, cos], dim=-1)
