"""Hugging Face's CLIP, SigLIP and SigLIP 2 vision encoders: config fields and weights."""

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.siglip.modeling_siglip import SiglipVisionModel
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionModel

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
)

TOWERS = (CLIPVisionModel, SiglipVisionModel, Siglip2VisionModel)

_RENAMES = [
    (r"embeddings\.class_embedding$", "embed.cls"),
    (r"embeddings\.position_embedding\.weight$", "embed.pos"),
    (r"embeddings\.patch_embedding\.", "embed.patch."),
    (r"pre_layrnorm\.", "ln_pre."),
    (r"encoder\.layers\.(\d+)\.layer_norm([12])\.", r"blocks.\1.ln\2."),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.", r"blocks.\1.attn.\2."),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"blocks.\1.attn.out."),
    (r"encoder\.layers\.(\d+)\.mlp\.fc1\.", r"blocks.\1.mlp.inp."),
    (r"encoder\.layers\.(\d+)\.mlp\.fc2\.", r"blocks.\1.mlp.out."),
    (r"post_layernorm\.", "ln_final."),
]
_UNUSED = (r"embeddings\.position_ids$", r"head\.")

_POOL_RENAMES = [
    (r"attention\.out_proj\.", "attn_pool.out."),
    (r"layernorm\.", "attn_pool.ln."),
    (r"mlp\.fc1\.", "attn_pool.mlp.inp."),
    (r"mlp\.fc2\.", "attn_pool.mlp.out."),
]
_POOL_SPLIT = (r"probe$", r"attention\.in_proj")


def read_tower(tower: Any) -> Tower:
    """Read an encoder, without an attention pool."""
    embeddings = tower.embeddings
    per_block = [_read_block(block, f"block {index}") for index, block in enumerate(tower.encoder.layers)]
    pre_norm = getattr(tower, "pre_layrnorm", None)
    weights = renamed(tower, _RENAMES, _UNUSED)
    if "embed.cls" in weights:
        weights["embed.cls"] = weights["embed.cls"][None]
    if isinstance(tower, Siglip2VisionModel):
        patches, weights["embed.patch.weight"] = _read_flat_patches(embeddings, weights["embed.patch.weight"])
    else:
        patches = {**read_patches(embeddings.patch_embedding), "image_size": pair(embeddings.image_size)}
    fields = {
        **same_in_all_blocks(per_block),
        **patches,
        "has_cls": "embed.cls" in weights,
        "positions": "tokens",
        "position_resampling": "bilinear_antialias" if isinstance(tower, Siglip2VisionModel) else "bicubic",
        "pre_norm": None if pre_norm is None else read_norm(pre_norm, "the norm before the blocks"),
    }
    weights = joined_qkv(weights, len(per_block))
    return Tower(fields, weights, list(tower.encoder.layers), read_norm(tower.post_layernorm, "the final norm"))


def _read_block(block: Any, where: str) -> dict[str, Any]:
    attn = block.self_attn
    return {
        **read_attention(attn, attn.out_proj, attn.scale, attn.num_heads, where),
        **read_plain_mlp(block.mlp, where),
        "block_norm": read_block_norms(block.layer_norm1, block.layer_norm2, where),
    }


def _read_flat_patches(embeddings: Any, weight: Tensor) -> tuple[dict[str, Any], Tensor]:
    """SigLIP 2 multiplies flattened patches (row, column, channel): the fields and weight of the same convolution."""
    linear, size, side = embeddings.patch_embedding, embeddings.patch_size, embeddings.position_embedding_size
    if side**2 != embeddings.num_patches:
        refuse(f"{embeddings.num_patches} positions, which do not form a square")
    kernel = rearrange(
        weight.detach(), "d_model (row column channel) -> d_model channel row column", row=size, column=size
    )
    fields = {
        "patch_size": (size, size),
        "n_channels": linear.in_features // size**2,
        "patch_bias": linear.bias is not None,
        "image_size": (side * size, side * size),
        "dynamic_image_size": True,
    }
    return fields, nn.Parameter(kernel.contiguous(), requires_grad=weight.requires_grad)


def read_attention_pool(pool: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config fields and the weights of SigLIP's attention pool."""
    attention, width = pool.attention, pool.probe.shape[-1]
    if type(attention) is not nn.MultiheadAttention or attention.in_proj_weight is None:
        refuse("an attention pool whose attention is no nn.MultiheadAttention of one width")
    if attention.bias_k is not None or attention.add_zero_attn or pool.probe.shape[1] != 1:
        refuse("an attention pool with several queries, or with a key of its own")
    mlp = read_plain_mlp(pool.mlp, "the attention pool")
    if mlp["mlp_bias"] != (True, True):
        refuse("an MLP without bias in the attention pool")
    fields = {
        "pool_n_heads": attention.num_heads,
        "pool_d_mlp": mlp["d_mlp"],
        "pool_act_fn": read_activation(pool.mlp.activation_fn, "the attention pool"),
        "pool_qkv_bias": attention.in_proj_bias is not None,
        "pool_norm": read_norm(pool.layernorm, "the norm of the attention pool"),
    }
    weights = renamed(pool, _POOL_RENAMES, _POOL_SPLIT)
    weights["attn_pool.latent"] = pool.probe[0]
    for kind, tensor in (("weight", attention.in_proj_weight), ("bias", attention.in_proj_bias)):
        if tensor is not None:
            weights[f"attn_pool.q.{kind}"], weights[f"attn_pool.kv.{kind}"] = tensor.split([width, 2 * width])
    return fields, weights


def features(tower: Any, images: Tensor) -> Tensor:
    """What the tower pools; the mean of the normed tokens if it has no pool."""
    output = run(tower, images)
    return output.last_hidden_state.mean(dim=1) if output.pooler_output is None else output.pooler_output


def run(model: Any, images: Tensor) -> Any:
    """Run an encoder, or a classifier around one, on images; SigLIP 2 takes their patches."""
    config = getattr(model.config, "vision_config", model.config)
    if config.model_type != "siglip2_vision_model":
        return model(pixel_values=images)
    size = config.patch_size
    patches = rearrange(
        images, "batch channel (h row) (w column) -> batch (h w) (row column channel)", row=size, column=size
    )
    grid = [images.shape[-2] // size, images.shape[-1] // size]
    mask = torch.ones(len(images), math.prod(grid), dtype=torch.long, device=images.device)
    shapes = torch.tensor([grid] * len(images), device=images.device)
    return model(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shapes)
