"""The random map, the baseline that an explanation has to beat."""

from typing import Literal
from zlib import crc32

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.feature_importance.traits import with_traits
from hooked_vit import HookedViT

__all__ = ["random_map"]


@with_traits(class_agnostic=True)
def random_map(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    seed: int = 0,
    index: Int[Tensor, "batch"] | None = None,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """Uniform random numbers, drawn for each image separately, so that they are the same in any batch.

    Args:
        model: The model.
        images: Preprocessed images, or the stream's start.
        classes: Not used.
        seed: Selects another draw.
        index: Each image's index in its dataset, which seeds its draw; by default its bytes do.
        start_at_layer: 0 if `images` is the stream's start.

    >>> model, images = HookedViT.from_pretrained("emoji-vit"), torch.rand(2, 3, 64, 64)
    >>> both = random_map(model, images, torch.tensor([3, 14]))
    >>> torch.equal(both[1:], random_map(model, images[1:], torch.tensor([9])))
    True
    """
    if index is None:
        draws = [crc32(image.contiguous().cpu().float().numpy().tobytes()) for image in images]
    else:
        draws = index.tolist()
    if start_at_layer is None:
        n_patches = model.cfg.token_layout_at(images.shape[-2], images.shape[-1]).n_patches
    else:
        n_patches = images.shape[1] - model.cfg.token_layout.n_prefix
    # the generator uses only 32 bits of a seed
    generators = [torch.Generator().manual_seed(crc32(f"{seed} {draw}".encode())) for draw in draws]
    return torch.stack([torch.rand(n_patches, generator=generator) for generator in generators]).to(images.device)
