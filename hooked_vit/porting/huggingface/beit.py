"""Hugging Face's BEiT encoder: config fields and weights, with its relative position bias."""

from typing import Any

from torch import Tensor, nn
from transformers.models.beit.modeling_beit import BeitModel

from hooked_vit.config import RelativeBiasConfig
from hooked_vit.porting.huggingface.parts import (
    Tower,
    joined_qkv,
    pair,
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

TOWERS = (BeitModel,)

_TABLE = "relative_position_bias_table"
_RENAMES = [
    (r"embeddings\.cls_token$", "embed.cls"),
    (r"embeddings\.position_embeddings$", "embed.pos"),
    (r"embeddings\.patch_embeddings\.projection\.", "embed.patch."),
    (rf"shared_position_bias\.{_TABLE}$", f"relative_bias.rel_pos.{_TABLE}"),
    (r"layers\.(\d+)\.layernorm_before\.", r"blocks.\1.ln1."),
    (r"layers\.(\d+)\.layernorm_after\.", r"blocks.\1.ln2."),
    (r"layers\.(\d+)\.lambda_([12])$", r"blocks.\1.ls\2"),
    (rf"layers\.(\d+)\.relative_position_bias\.{_TABLE}$", rf"blocks.\1.attn.relative_bias.rel_pos.{_TABLE}"),
    (r"layers\.(\d+)\.attention\.([qkv])_proj\.", r"blocks.\1.attn.\2."),
    (r"layers\.(\d+)\.attention\.o_proj\.", r"blocks.\1.attn.out."),
    (r"layers\.(\d+)\.mlp\.fc1\.", r"blocks.\1.mlp.inp."),
    (r"layers\.(\d+)\.mlp\.fc2\.", r"blocks.\1.mlp.out."),
    (r"(?:pooler\.)?layernorm\.", "ln_final."),
]
_UNUSED = (r"embeddings\.mask_token$",)


def read_tower(tower: Any) -> Tower:
    """Read an encoder. Without a pooler that norms the mean of the patches, it norms all tokens."""
    embeddings = tower.embeddings
    image_size = pair(embeddings.patch_embeddings.image_size)
    per_block = [_read_block(block, f"block {index}") for index, block in enumerate(tower.layers)]
    blocks = dict(same_in_all_blocks(per_block))
    own, shared = blocks.pop("own_bias"), tower.shared_position_bias is not None
    if own and shared:
        refuse("a relative position bias of each block together with one that all blocks share")
    if (own or shared) and image_size[0] != image_size[1]:
        refuse(f"a relative position bias of images that are not square {image_size}, which transformers mixes up")
    fields = {
        **blocks,
        **read_patches(embeddings.patch_embeddings.projection),
        "image_size": image_size,
        "positions": "none" if embeddings.position_embeddings is None else "tokens",
        "position_resampling": "bicubic",
        "relative_bias": RelativeBiasConfig("table", shared=shared) if own or shared else None,
    }
    weights = without_leading_axis(renamed(tower, _RENAMES, _UNUSED), ("embed.cls", "embed.pos"))
    return Tower(fields, joined_qkv(weights, len(per_block)), list(tower.layers), _final_norm(tower))


def _read_block(block: Any, where: str) -> dict[str, Any]:
    attn = block.attention
    scaled = [isinstance(scale, nn.Parameter) for scale in (block.lambda_1, block.lambda_2)]
    if scaled[0] != scaled[1]:
        refuse(f"LayerScale on only one sub-layer in {where}")
    return {
        **read_attention(attn, attn.o_proj, attn.scaling, attn.num_attention_heads, where),
        **read_plain_mlp(block.mlp, where),
        "block_norm": read_block_norms(block.layernorm_before, block.layernorm_after, where),
        "layer_scale": scaled[0],
        "own_bias": block.relative_position_bias is not None,
    }


def _pooler_norm(tower: Any) -> Any:
    return None if tower.pooler is None else tower.pooler.layernorm


def _final_norm(tower: Any) -> Any:
    before, after = read_norm(tower.layernorm, "the final norm"), None
    if _pooler_norm(tower) is not None:
        after = read_norm(_pooler_norm(tower), "the norm of the pooler")
    if before is not None and after is not None:
        refuse("a norm of the mean of the patches together with another final norm")
    return before or after


def read_pool(tower: Any) -> dict[str, Any]:
    """What the head reads: the normed mean of the patches, or CLS."""
    averages = _pooler_norm(tower) is not None
    return {"pool": "avg" if averages else "cls", "norm_after_pool": averages}


def features(tower: Any, images: Tensor) -> Tensor:
    """What the pooler gives; CLS where there is none."""
    output = tower(images)
    return output.last_hidden_state[:, 0] if output.pooler_output is None else output.pooler_output
