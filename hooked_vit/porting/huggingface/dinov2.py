"""Hugging Face's DINOv2 encoder, with and without registers: config fields and weights."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.dinov2 import modeling_dinov2
from transformers.models.dinov2_with_registers import modeling_dinov2_with_registers

from hooked_vit.porting.huggingface.parts import (
    Tower,
    joined_qkv,
    pair,
    read_activation,
    read_attention,
    read_block_norms,
    read_norm,
    read_patches,
    read_plain_mlp,
    refuse,
    renamed,
    same_in_all_blocks,
    without_leading_axis,
)

TOWERS = (modeling_dinov2.Dinov2Model, modeling_dinov2_with_registers.Dinov2WithRegistersModel)
_GATED = (modeling_dinov2.Dinov2SwiGLUFFN, modeling_dinov2_with_registers.Dinov2WithRegistersSwiGLUFFN)

_RENAMES = [
    (r"embeddings\.cls_token$", "embed.cls"),
    (r"embeddings\.register_tokens$", "embed.registers"),
    (r"embeddings\.position_embeddings$", "embed.pos"),
    (r"embeddings\.patch_embeddings\.projection\.", "embed.patch."),
    (r"encoder\.layer\.(\d+)\.norm([12])\.", r"blocks.\1.ln\2."),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2"),
    (r"encoder\.layer\.(\d+)\.attention\.([qkv])_proj\.", r"blocks.\1.attn.\2."),
    (r"encoder\.layer\.(\d+)\.attention\.o_proj\.", r"blocks.\1.attn.out."),
    (r"encoder\.layer\.(\d+)\.mlp\.(?:fc1|up_proj)\.", r"blocks.\1.mlp.inp."),
    (r"encoder\.layer\.(\d+)\.mlp\.gate_proj\.", r"blocks.\1.mlp.gate."),
    (r"encoder\.layer\.(\d+)\.mlp\.(?:fc2|down_proj)\.", r"blocks.\1.mlp.out."),
    (r"layernorm\.", "ln_final."),
]
_UNUSED = (r"embeddings\.mask_token$",)


def read_tower(tower: Any) -> Tower:
    """Read an encoder. Registers have no positions: their rows of the position embedding are zero."""
    embeddings = tower.embeddings
    image_size = pair(embeddings.patch_embeddings.image_size)
    if image_size[0] != image_size[1]:
        refuse(f"positions learnt on images that are not square {image_size}, which transformers cannot resample")
    per_block = [_read_block(block, f"block {index}") for index, block in enumerate(tower.encoder.layer)]
    registers = getattr(embeddings, "register_tokens", None)
    n_registers = 0 if registers is None else registers.shape[1]
    fields = {
        **same_in_all_blocks(per_block),
        **read_patches(embeddings.patch_embeddings.projection),
        "image_size": image_size,
        "dynamic_image_size": True,
        "n_registers": n_registers,
        "positions": "tokens",
        "position_resampling": "bicubic" if registers is None else "bicubic_antialias",
        "layer_scale": True,
    }
    weights = without_leading_axis(renamed(tower, _RENAMES, _UNUSED), ("embed.cls", "embed.registers", "embed.pos"))
    if n_registers:
        positions = weights["embed.pos"]
        zeros = positions.new_zeros(n_registers, positions.shape[1])
        rows = torch.cat([positions[:1], zeros, positions[1:]]).detach()
        weights["embed.pos"] = nn.Parameter(rows, requires_grad=positions.requires_grad)
    else:
        weights.pop("embed.registers", None)
    weights = joined_qkv(weights, len(per_block))
    return Tower(fields, weights, list(tower.encoder.layer), read_norm(tower.layernorm, "the final norm"))


def _read_block(block: Any, where: str) -> dict[str, Any]:
    attn, mlp = block.attention, block.mlp
    fields = {
        **read_attention(attn, attn.o_proj, attn.scaling, attn.num_attention_heads, where),
        "block_norm": read_block_norms(block.norm1, block.norm2, where),
    }
    if type(mlp) not in _GATED:
        return {**fields, **read_plain_mlp(mlp, where)}
    return {
        **fields,
        "d_mlp": mlp.down_proj.in_features,
        "act_fn": read_activation(mlp.act_fn, f"the MLP of {where}"),
        "mlp_kind": "glu_split",
        "mlp_bias": (mlp.up_proj.bias is not None, mlp.down_proj.bias is not None),
    }


def features(tower: nn.Module, images: Tensor) -> Tensor:
    """CLS after the final norm."""
    return tower(images).pooler_output
