"""What attention takes besides the stream: keys that are left out, rotations, and biases of the scores."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def additive_mask(keys: Bool[Tensor, "batch key"], dtype: torch.dtype) -> Float[Tensor, "batch 1 1 key"]:
    """Zero at the keys that may be attended to, minus infinity at the others."""
    return torch.zeros(keys.shape, dtype=dtype, device=keys.device).masked_fill(~keys, -torch.inf)[:, None, None]


@dataclass(frozen=True)
class AttentionTerms:
    """What attention takes besides the stream. A term that is `None` does not exist in the model or the run.

    Attributes:
        mask: Added to the scores: minus infinity where a key is left out.
        rotation: Sines, then cosines of each token, by which queries and keys are rotated. The head axis is of length
            one if all heads are rotated alike. `of_layers` adds a first axis, of length one if all layers are.
        bias: A bias of the scores that all layers share.
        kept: The tokens of the run, by their index in the whole image; `None` if it has all of them. A block's own
            bias is taken at these.
    """

    mask: Float[Tensor, "batch 1 1 key"] | None = None
    rotation: Float[Tensor, "*axes head token sin_cos"] | None = None
    bias: Float[Tensor, "batch head query key"] | None = None
    kept: Int[Tensor, "batch kept"] | None = None

    def at(self, layer: int) -> "AttentionTerms":
        """The terms of one layer, from those of all layers."""
        if self.rotation is None:
            return self
        return replace(self, rotation=self.rotation[layer if len(self.rotation) > 1 else 0])


NO_TERMS = AttentionTerms()


def rotation_at(
    rotation: Float[Tensor, "layer head token sin_cos"] | Float[Tensor, "layer batch head token sin_cos"],
    kept: Int[Tensor, "batch kept"],
) -> Float[Tensor, "layer batch head kept sin_cos"]:
    """The rotations of the kept tokens of each image, of those of all images or of each."""
    if rotation.ndim == 4:
        rotation = rotation[:, None].expand(-1, len(kept), -1, -1, -1)
    n_layers, _, n_heads, _, width = rotation.shape
    index = kept[None, :, None, :, None].expand(n_layers, -1, n_heads, -1, width)
    return rotation.gather(3, index)


def bias_at(
    bias: Float[Tensor, "1 head token token"], kept: Int[Tensor, "batch kept"]
) -> Float[Tensor, "batch head kept kept"]:
    """The biases between the kept tokens of each image."""
    return bias[0][:, kept[:, :, None], kept[:, None, :]].transpose(0, 1)
