"""Products of stream differences with gradients before a norm, from the gradients after it."""

import torch
from jaxtyping import Float
from torch import Tensor

from hooked_vit.components.norm import Norm

__all__ = ["products_before_norm"]


def products_before_norm(
    norm: Norm | None,
    stream: Float[Tensor, "batch token d_model"],
    differences: Float[Tensor, "batch token sender d_model"],
    gradients: Float[Tensor, "batch token reader d_model"],
) -> Float[Tensor, "batch token sender reader"]:
    """`differences · Jᵀ gradients` for each sender and reader, with J the Jacobian of the norm at the stream.

    With x̂ the normalised stream before the weight w, s its scale and g = w · gradient / s,

        Jᵀ gradient = g - mean(g) - x̂ mean(g · x̂)      (an RMSNorm has no mean(g)),

    so the product is one matrix product and two rank-one corrections: no vector per reader is written out.

    >>> norm, x = HookedViT.from_pretrained("emoji-vit").blocks[0].ln1, torch.randn(1, 2, 128)
    >>> differences, gradients = torch.randn(1, 2, 3, 128), torch.randn(1, 2, 4, 128)
    >>> products_before_norm(norm, x, differences, gradients).shape
    torch.Size([1, 2, 3, 4])
    """
    if norm is None:
        return differences @ gradients.transpose(-1, -2)
    scale = norm.scale(stream)
    normalised = (norm.centre(stream) / scale)[..., None]  # [batch token d_model 1]
    scaled = gradients if norm.weight is None else gradients * norm.weight
    width = stream.shape[-1]
    products = differences @ scaled.transpose(-1, -2)
    along = (differences @ normalised) * (scaled @ normalised).transpose(-1, -2)
    if norm.cfg.kind == "layer":
        along = along + differences.sum(-1, keepdim=True) * scaled.sum(-1, keepdim=True).transpose(-1, -2)
    return (products - along / width) / scale[..., None]


def summed_products_before_norm(
    norm: Norm | None,
    stream: Float[Tensor, "batch token d_model"],
    differences: Float[Tensor, "batch token sender d_model"],
    gradients: Float[Tensor, "batch token reader d_model"],
) -> Float[Tensor, "batch sender reader"]:
    """`products_before_norm`, summed over tokens: one matrix product over tokens and widths.

    >>> norm, x = HookedViT.from_pretrained("emoji-vit").blocks[0].ln1, torch.randn(1, 2, 128)
    >>> differences, gradients = torch.randn(1, 2, 3, 128), torch.randn(1, 2, 4, 128)
    >>> summed = summed_products_before_norm(norm, x, differences, gradients)
    >>> torch.allclose(summed, products_before_norm(norm, x, differences, gradients).sum(dim=1), atol=1e-4)
    True
    """
    by_sender = differences.transpose(1, 2)
    if norm is None:
        return by_sender.flatten(2) @ gradients.transpose(1, 2).flatten(2).transpose(1, 2)
    scale = norm.scale(stream)
    normalised = norm.centre(stream) / scale
    scaled = gradients / scale[..., None]
    if norm.weight is not None:
        scaled = scaled * norm.weight
    products = by_sender.flatten(2) @ scaled.transpose(1, 2).flatten(2).transpose(1, 2)
    along = [torch.einsum("bstd,btd->bst", by_sender, normalised)]
    through = [torch.einsum("btrd,btd->btr", scaled, normalised)]
    if norm.cfg.kind == "layer":
        along.append(by_sender.sum(dim=-1))
        through.append(scaled.sum(dim=-1))
    return products - sum(a @ b for a, b in zip(along, through, strict=True)) / stream.shape[-1]


def projected(
    gradients: Float[Tensor, "batch token head d_head"], weight: Float[Tensor, "head d_model d_head"]
) -> Float[Tensor, "batch token head d_model"]:
    """Gradients at what a block's stream is projected to, as gradients at the stream after its norm."""
    return torch.einsum("bthe,hde->bthd", gradients, weight)
