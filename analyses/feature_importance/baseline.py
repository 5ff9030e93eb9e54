"""A random map: what an explanation has to beat."""

from typing import Literal
from zlib import crc32

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooked_vit import HookedViT

__all__ = ["random_map"]


def random_map(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    classes: Int[Tensor, "batch"],
    *,
    seed: int = 0,
    index: Int[Tensor, "batch"] | None = None,
    start_at_layer: Literal[0] | None = None,
) -> Float[Tensor, "batch patch"]:
    """Uniform numbers, drawn for each image by itself: the same in any batch.

    Args:
        model: The model.
        images: Preprocessed images, or the stream's start.
        classes: Not looked at.
        seed: Which draw.
        index: Each image's place in its dataset, to draw from; by default its own bytes.
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
    # a seed of 32 bits is all that the generator looks at
    generators = [torch.Generator().manual_seed(crc32(f"{seed} {draw}".encode())) for draw in draws]
    return torch.stack([torch.rand(n_patches, generator=one) for one in generators]).to(images.device)
