"""Tiny timm models of the families with rotary positions or relative position bias, all dimensions different."""

from typing import Any

import torch
from conftest import perturb
from timm import layers
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer_relpos import ResPostRelPosBlock, VisionTransformerRelPos
from torch import nn

_SHAPE = {"img_size": (32, 24), "patch_size": 8, "num_classes": 7, "embed_dim": 48, "depth": 2, "num_heads": 4,
          "mlp_ratio": 1.5}  # fmt: skip
_ROPE = {"use_rot_pos_emb": True, "use_abs_pos_emb": False}

EVAS: dict[str, dict[str, Any]] = {
    "EVA, mean": {},
    "EVA, token": {"global_pool": "token", "qkv_bias": False},
    "EVA-02": {**_ROPE, "use_abs_pos_emb": True, "qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True,
               "ref_feat_shape": (5, 5)},
    "EVA-02-CLIP": {**_ROPE, "use_abs_pos_emb": True, "qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True,
                    "scale_attn_inner": True, "ref_feat_shape": (4, 4), "global_pool": "token"},
    "post-norm": {"use_post_norm": True, "global_pool": "token"},
    "packed SwiGLU": {**_ROPE, "swiglu_mlp": True, "num_reg_tokens": 1, "class_token": False},
    "Perception Encoder": {**_ROPE, "use_abs_pos_emb": True, "attn_type": "rope", "use_pre_transformer_norm": True,
                           "global_pool": "map", "attn_pool_num_heads": 2, "attn_pool_mlp_ratio": 2.0,
                           "use_fc_norm": False, "rope_grid_offset": 1.0, "rope_grid_indexing": "xy",
                           "ref_feat_shape": (6, 6)},
    "Perception Encoder, features": {**_ROPE, "attn_type": "rope", "use_pre_transformer_norm": True, "num_classes": 0,
                                     "use_fc_norm": False, "use_post_transformer_norm": False, "init_values": 0.1,
                                     "class_token": False, "rope_grid_offset": 1.0},
    "RoPE-ViT axial": {**_ROPE, "qkv_fused": True, "attn_type": "rope", "init_values": 0.1, "global_pool": "token",
                       "rope_grid_indexing": "xy", "rope_temperature": 100.0},
    "RoPE-ViT mixed": {**_ROPE, "use_abs_pos_emb": True, "no_embed_class": True, "attn_type": "rope",
                       "rope_type": "mixed", "rope_grid_indexing": "xy", "rope_temperature": 10.0,
                       "global_pool": "token"},
    "DINOv3": {**_ROPE, "rope_type": "dinov3", "rope_rotate_half": True, "num_reg_tokens": 2, "init_values": 0.1,
               "rope_temperature": 100, "qkv_bias": False, "dynamic_img_size": True, "use_fc_norm": False},
    "DINOv3, biases, aligned SwiGLU": {**_ROPE, "rope_type": "dinov3", "rope_rotate_half": True, "num_reg_tokens": 2,
                                       "init_values": 0.1, "swiglu_mlp": True, "swiglu_align_to": 8,
                                       "dynamic_img_size": True, "use_fc_norm": False, "rope_rescale_coords": 2.0},
    "Sapiens2": {**_ROPE, "rope_type": "dinov3", "rope_rotate_half": True, "num_reg_tokens": 3, "init_values": 0.2,
                 "attn_only_layer_scale": True, "attn_type": "rope", "qkv_fused": False, "num_kv_heads": (4, 2),
                 "qk_norm": True, "swiglu_mlp": True, "swiglu_align_to": 8, "norm_layer": layers.RmsNorm,
                 "dynamic_img_size": True},
    "MRoPE": {**_ROPE, "rope_type": "mrope", "rope_mrope_section": (2, 2, 2), "attn_type": "rope",
              "no_embed_class": True, "use_abs_pos_emb": True, "global_pool": "max"},
}  # fmt: skip
BEITS: dict[str, dict[str, Any]] = {
    "BEiT": {"use_rel_pos_bias": True, "use_abs_pos_emb": False, "init_values": 0.1},
    "shared bias": {"use_shared_rel_pos_bias": True, "global_pool": "token"},
    "SwiGLU, no biases": {"swiglu_mlp": True, "scale_mlp": True, "qkv_bias": False, "use_rel_pos_bias": True},
}
RELPOS: dict[str, dict[str, Any]] = {
    "MLP": {"fc_norm": True, "qkv_bias": False, "init_values": 0.1},
    "MLP, CLS": {"class_token": True, "global_pool": "token", "rel_pos_dim": 20, "qkv_bias": False},
    "post-norm": {"block_fn": ResPostRelPosBlock, "init_values": 0.5},
    "shared MLP": {"shared_rel_pos": True, "rel_pos_dim": 20, "qk_norm": True},
    "Swin MLP": {"rel_pos_type": "mlp-swin", "init_values": None},
    "table": {"rel_pos_type": "bias", "class_token": True},
    "shared table": {"rel_pos_type": "bias", "shared_rel_pos": True},
}
FAMILIES = {"Eva": (Eva, EVAS), "Beit": (Beit, BEITS), "RelPos": (VisionTransformerRelPos, RELPOS)}
MODELS = [(family, variant) for family, (_, variants) in FAMILIES.items() for variant in variants]


def make(family: str, variant: str, seed: int = 0, **changes: object) -> nn.Module:
    """A perturbed tiny model: width 48, 4 heads of width 12, a 4 × 3 grid, 7 classes."""
    cls, variants = FAMILIES[family]
    arguments = {**_SHAPE, **variants[variant], **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return perturb(cls(**arguments), seed)
