"""Reading the parts of Hugging Face modules, renaming their tensors, and refusing what is not covered."""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import activations

from hooked_vit.config import NormConfig
from hooked_vit.porting.parts import fields_of_all_blocks, qualified, tiles
from hooked_vit.porting.weights import renamed_by

COVERED = (
    "ViT, DeiT, I-JEPA, BEiT, DINOv2 with and without registers, DINOv3, CLIP, SigLIP and SigLIP 2 of transformers: "
    "the encoder alone, its image classifier, CLIP with its projection, or the encoder inside a larger model"
)


def refuse(feature: str, instead: str = "") -> NoReturn:
    """Raise the error for a Hugging Face module that has a part HookedViT does not cover."""
    raise ValueError(f"not covered: {feature}.{' ' + instead if instead else ''} HookedViT covers {COVERED}")


@dataclass(frozen=True)
class Tower:
    """What is read from an encoder: fields of the config, weights under HookedViT's names, and its blocks.

    `final_norm` is the norm that its features pass; the head decides whether it reads them before or after.
    """

    fields: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    blocks: Sequence[nn.Module]
    final_norm: NormConfig | None


_ACTIVATIONS: dict[type, str] = {
    activations.GELUActivation: "gelu",
    activations.GELUTanh: "gelu_tanh",
    activations.QuickGELUActivation: "quick_gelu",
    activations.SiLUActivation: "silu",
    nn.SiLU: "silu",
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
}


def read_activation(act: Any, where: str) -> str:
    """The name of an activation function in `hooked_vit.components.mlp.ACTIVATIONS`."""
    name = _ACTIVATIONS.get(type(act))
    in_python = (name == "gelu" and act.act is not F.gelu) or (
        name == "gelu_tanh" and not isinstance(act.act, functools.partial)
    )
    if name is None or in_python:
        refuse(f"the activation function {type(act).__name__}{' written in Python' if in_python else ''} in {where}")
    return name


def read_norm(norm: Any, where: str) -> NormConfig | None:
    """The config of a LayerNorm; `None` for an identity."""
    if type(norm) is nn.Identity:
        return None
    if type(norm) is not nn.LayerNorm:
        refuse(f"a {qualified(norm)} as {where}")
    return NormConfig("layer", float(norm.eps), norm.weight is not None, norm.bias is not None)


def read_block_norms(first: Any, second: Any, where: str) -> NormConfig:
    """The config that the two norms of a block share."""
    norm = read_norm(first, f"the first norm of {where}")
    if norm is None or norm != read_norm(second, f"the second norm of {where}"):
        refuse(f"two norms of different kinds, or none, in {where}")
    return norm


def read_attention(attn: Any, out: nn.Linear, scale: float, n_heads: int, where: str) -> dict[str, Any]:
    """The config fields of an attention layer with three projections."""
    width, d_head = attn.q_proj.out_features, attn.head_dim
    if not math.isclose(scale, d_head**-0.5, rel_tol=1e-6):
        refuse(f"the scale {scale} of the attention scores in {where}, which is not 1 / sqrt(d_head)")
    if any(layer.out_features != width for layer in (attn.k_proj, attn.v_proj)) or n_heads * d_head != width:
        refuse(f"queries, keys and values of different widths in {where}")
    q_bias, k_bias, v_bias = (layer.bias is not None for layer in (attn.q_proj, attn.k_proj, attn.v_proj))
    if q_bias != v_bias or (k_bias and not q_bias):
        refuse(f"biases on only some of queries, keys and values in {where}")
    return {
        "n_heads": n_heads,
        "d_head": d_head,
        "qkv_bias": q_bias,
        "k_bias": k_bias or not q_bias,
        "separate_qkv": True,
        "scale_scores": True,
        "attn_out_bias": out.bias is not None,
    }


def read_plain_mlp(mlp: Any, where: str) -> dict[str, Any]:
    """The config fields of an MLP of two layers, `fc1` and `fc2`."""
    return {
        "d_mlp": mlp.fc2.in_features,
        "act_fn": read_activation(mlp.activation_fn, f"the MLP of {where}"),
        "mlp_bias": (mlp.fc1.bias is not None, mlp.fc2.bias is not None),
    }


def read_patches(conv: Any) -> dict[str, Any]:
    """The config fields of a patch embedding by convolution."""
    if type(conv) is not nn.Conv2d:
        refuse(f"a patch embedding by {qualified(conv)}")
    if not tiles(conv):
        refuse("a patch embedding whose patches overlap, are padded, grouped or dilated")
    return {"patch_size": conv.kernel_size, "n_channels": conv.in_channels, "patch_bias": conv.bias is not None}


def same_in_all_blocks(per_block: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The config fields that all blocks share.

    Raises:
        ValueError: If there is no block, or blocks differ.
    """
    return fields_of_all_blocks(per_block, refuse)


def pair(size: Any) -> tuple[int, int]:
    """Height and width of a size that may be a single number.

    >>> pair(224), pair([32, 48])
    ((224, 224), (32, 48))
    """
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def renamed(module: nn.Module, renames: Sequence[tuple[str, str]], unused: Sequence[str] = ()) -> dict[str, Tensor]:
    """The tensors of a module under HookedViT's names; they are the module's own.

    Args:
        module: The encoder.
        renames: Patterns of its names, and their replacements.
        unused: Patterns of tensors that do not take part in the forward pass of images.

    Raises:
        ValueError: If a tensor has no name in a HookedViT.
    """
    used = {
        name: tensor
        for name, tensor in module.state_dict(keep_vars=True).items()
        if not any(re.match(pattern, name) for pattern in unused)
    }
    weights, unknown = renamed_by(used, renames)
    if unknown:
        refuse(f"{len(unknown)} tensors that have no name in a HookedViT: {', '.join(unknown[:5])}")
    return weights


def without_leading_axis(weights: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """The weights, with the leading axis of length one removed from those of these names that there are."""
    return {name: tensor[0] if name in names else tensor for name, tensor in weights.items()}


def joined_qkv(weights: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """The weights with queries, keys and values of each block in one matrix, as HookedViT stores them."""
    rest = dict(weights)
    for layer in range(n_layers):
        attn = f"blocks.{layer}.attn."
        for kind in ("weight", "bias"):
            parts = {part: rest.pop(f"{attn}{part}.{kind}") for part in "qkv" if f"{attn}{part}.{kind}" in rest}
            if len(parts) == 3:
                trained = any(part.requires_grad for part in parts.values())
                joined = torch.cat([part.detach() for part in parts.values()])
                rest[f"{attn}qkv.{kind}"] = nn.Parameter(joined, requires_grad=trained)
            else:  # keys without a bias
                rest |= {f"{attn}qkv.{part}_bias": tensor for part, tensor in parts.items()}
    return rest
