"""Hugging Face's ViT, DeiT and I-JEPA encoders: config fields and weights."""

from typing import Any

from torch import Tensor, nn
from transformers.models.deit.modeling_deit import DeiTModel
from transformers.models.ijepa.modeling_ijepa import IJepaModel
from transformers.models.vit.modeling_vit import ViTModel

from hooked_vit.porting.huggingface.parts import (
    Tower,
    joined_qkv,
    pair,
    read_attention,
    read_block_norms,
    read_norm,
    read_patches,
    read_plain_mlp,
    renamed,
    same_in_all_blocks,
    without_leading_axis,
)

TOWERS = (ViTModel, DeiTModel, IJepaModel)

_RENAMES = [
    (r"embeddings\.cls_token$", "embed.cls"),
    (r"embeddings\.distillation_token$", "embed.dist"),
    (r"embeddings\.position_embeddings$", "embed.pos"),
    (r"embeddings\.patch_embeddings\.projection\.", "embed.patch."),
    (r"layers\.(\d+)\.layernorm_before\.", r"blocks.\1.ln1."),
    (r"layers\.(\d+)\.layernorm_after\.", r"blocks.\1.ln2."),
    (r"layers\.(\d+)\.attention\.([qkv])_proj\.", r"blocks.\1.attn.\2."),
    (r"layers\.(\d+)\.attention\.o_proj\.", r"blocks.\1.attn.out."),
    (r"layers\.(\d+)\.mlp\.fc1\.", r"blocks.\1.mlp.inp."),
    (r"layers\.(\d+)\.mlp\.fc2\.", r"blocks.\1.mlp.out."),
    (r"layernorm\.", "ln_final."),
]
_UNUSED = (r"embeddings\.mask_token$", r"pooler\.")


def read_tower(tower: Any) -> Tower:
    """Read an encoder. Its pooler, a layer with a tanh that only pre-training reads, is left out."""
    embeddings = tower.embeddings
    per_block = [_read_block(block, f"block {index}") for index, block in enumerate(tower.layers)]
    fields = {
        **same_in_all_blocks(per_block),
        **read_patches(embeddings.patch_embeddings.projection),
        "image_size": pair(embeddings.patch_embeddings.image_size),
        "has_cls": hasattr(embeddings, "cls_token"),
        "has_dist": hasattr(embeddings, "distillation_token"),
        "positions": "tokens",
        "position_resampling": "bicubic",
    }
    weights = without_leading_axis(renamed(tower, _RENAMES, _UNUSED), ("embed.cls", "embed.dist", "embed.pos"))
    return Tower(
        fields, joined_qkv(weights, len(per_block)), list(tower.layers), read_norm(tower.layernorm, "the final norm")
    )


def _read_block(block: Any, where: str) -> dict[str, Any]:
    attn = block.attention
    return {
        **read_attention(attn, attn.o_proj, attn.scaling, attn.num_attention_heads, where),
        **read_plain_mlp(block.mlp, where),
        "block_norm": read_block_norms(block.layernorm_before, block.layernorm_after, where),
    }


def features(tower: nn.Module, images: Tensor) -> Tensor:
    """CLS after the final norm; the mean of all tokens where there is no CLS."""
    tokens = tower(images).last_hidden_state
    return tokens.mean(dim=1) if isinstance(tower, IJepaModel) else tokens[:, 0]
