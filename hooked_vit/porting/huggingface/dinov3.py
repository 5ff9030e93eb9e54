"""Hugging Face's DINOv3 ViT encoder: config fields and weights, with its rotary positions."""

from typing import Any

from torch import Tensor, nn
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTGatedMLP, DINOv3ViTModel

from hooked_vit.config import RotaryConfig
from hooked_vit.porting.huggingface.parts import (
    Tower,
    joined_qkv,
    pair,
    read_activation,
    read_attention,
    read_block_norms,
    read_norm,
    read_patches,
    renamed,
    same_in_all_blocks,
    without_leading_axis,
)

TOWERS = (DINOv3ViTModel,)

_RENAMES = [
    (r"embeddings\.cls_token$", "embed.cls"),
    (r"embeddings\.register_tokens$", "embed.registers"),
    (r"embeddings\.patch_embeddings\.", "embed.patch."),
    (r"model\.layer\.(\d+)\.norm([12])\.", r"blocks.\1.ln\2."),
    (r"model\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2"),
    (r"model\.layer\.(\d+)\.attention\.([qkv])_proj\.", r"blocks.\1.attn.\2."),
    (r"model\.layer\.(\d+)\.attention\.o_proj\.", r"blocks.\1.attn.out."),
    (r"model\.layer\.(\d+)\.mlp\.up_proj\.", r"blocks.\1.mlp.inp."),
    (r"model\.layer\.(\d+)\.mlp\.gate_proj\.", r"blocks.\1.mlp.gate."),
    (r"model\.layer\.(\d+)\.mlp\.down_proj\.", r"blocks.\1.mlp.out."),
    (r"norm\.", "ln_final."),
]
_UNUSED = (r"embeddings\.mask_token$",)


def read_tower(tower: Any) -> Tower:
    """Read an encoder. Angles are computed by timm's module for DINOv3, which rounds them otherwise."""
    embeddings, blocks = tower.embeddings, list(tower.model.layer)
    per_block = [_read_block(block, f"block {index}") for index, block in enumerate(blocks)]
    n_registers = embeddings.register_tokens.shape[1]
    fields = {
        **same_in_all_blocks(per_block),
        **read_patches(embeddings.patch_embeddings),
        "image_size": pair(tower.config.image_size),
        "dynamic_image_size": True,
        "n_registers": n_registers,
        "positions": "none",
        "rotary": RotaryConfig("dinov3", float(tower.rope_embeddings.base), rotate_half=True),
        "layer_scale": True,
    }
    weights = without_leading_axis(renamed(tower, _RENAMES, _UNUSED), ("embed.cls", "embed.registers"))
    if not n_registers:
        del weights["embed.registers"]
    return Tower(fields, joined_qkv(weights, len(blocks)), blocks, read_norm(tower.norm, "the final norm"))


def _read_block(block: Any, where: str) -> dict[str, Any]:
    attn, mlp = block.attention, block.mlp
    return {
        **read_attention(attn, attn.o_proj, attn.scaling, attn.num_heads, where),
        "block_norm": read_block_norms(block.norm1, block.norm2, where),
        "d_mlp": mlp.down_proj.in_features,
        "act_fn": read_activation(mlp.act_fn, f"the MLP of {where}"),
        "mlp_kind": "glu_split" if type(mlp) is DINOv3ViTGatedMLP else "plain",
        "mlp_bias": (mlp.up_proj.bias is not None, mlp.down_proj.bias is not None),
    }


def features(tower: nn.Module, images: Tensor) -> Tensor:
    """CLS after the final norm."""
    return tower(images).pooler_output
