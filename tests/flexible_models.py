"""Small NaFlexVits of every kind of position, pool and patch, and batches of sequences for them."""

import torch
from conftest import perturb
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from torch import Tensor, nn

PATCH = (8, 6)
GRIDS = [(4, 3), (2, 5), (1, 6)]

# every kind of position, of pool and of patch, with all dimensions different
VARIANTS: dict[str, dict] = {
    "gap": {"global_pool": "avg", "fc_norm": True, "reg_tokens": 2, "init_values": 0.1},
    "map": {"global_pool": "map", "reg_tokens": 1},
    "map_of_all": {"global_pool": "map", "reg_tokens": 2, "pool_include_prefix": True, "attn_pool_num_heads": 4},
    "cls": {"global_pool": "token", "class_token": True, "pre_norm": True, "reg_tokens": 2},
    "radio": {"global_pool": "token", "class_token": True, "reg_tokens": 3, "final_norm": False,
              "pos_embed_interp_mode": "bilinear", "pos_embed_ar_preserving": True, "pos_embed_antialias": False,
              "pos_embed_align_corners": True},
    "square": {"global_pool": "avg", "pos_embed_ar_preserving": True},
    "axes": {"global_pool": "avg", "pos_embed": "factorized"},
    "axes_square": {"global_pool": "avg", "pos_embed": "factorized", "pos_embed_ar_preserving": True, "reg_tokens": 1},
    "sampled": {"global_pool": "max", "pool_include_prefix": True, "pos_embed_use_grid_sample": True, "reg_tokens": 1},
    "axes_sampled": {"global_pool": "avgmax", "pos_embed": "factorized", "pos_embed_use_grid_sample": True},
    "no_positions": {"global_pool": "token", "class_token": True, "pos_embed": "none", "patchify_channels_last": False},
    "key_mask": {"global_pool": "avg", "use_key_only_attn_mask": True, "qkv_bias": False, "qk_norm": True},
    "convolved": {"global_pool": "avg", "embed_proj_type": "conv", "dynamic_img_pad": True,
                  "embed_norm_layer": "layernorm"},
    "axial": {"global_pool": "avg", "rope_type": "axial", "reg_tokens": 2, "pos_embed": "none", "init_values": 0.2,
              "attn_only_layer_scale": True, "swiglu_mlp": True},
    "axial_of_a_grid": {"global_pool": "token", "class_token": True, "rope_type": "axial", "rope_grid_offset": 0.5,
                        "rope_ref_feat_shape": (3, 5), "rope_grid_indexing": "xy", "attn_type": "eva"},
    "mixed": {"global_pool": "map", "rope_type": "mixed", "reg_tokens": 1, "attn_gated": True, "qkv_bias": False},
    "dinov3": {"global_pool": "token", "class_token": True, "reg_tokens": 1, "rope_type": "dinov3",
               "rope_rotate_half": True, "qkv_fused": False, "attn_type": "eva", "scale_mlp_norm": True,
               "scale_attn_inner_norm": True, "swiglu_mlp": True},
    "mrope": {"global_pool": "avg", "rope_type": "mrope", "rope_mrope_section": (2, 1, 1), "num_heads": 4,
              "embed_dim": 32, "num_kv_heads": (4, 2, 1), "qkv_fused": False, "qk_norm": True},
    "padded": {"global_pool": "avg", "dynamic_img_pad": True, "embed_norm_layer": "layernorm"},
}  # fmt: skip


def make_naflex(variant: str, **changes: object) -> nn.Module:
    """A perturbed NaFlexVit: 3 blocks, 3 heads of width 8, 7 classes, patches of 8 × 6 pixels, positions on 4 × 3."""
    arguments = {"patch_size": PATCH, "embed_dim": 24, "depth": 3, "num_heads": 3, "mlp_ratio": 2.5,
                 "pos_embed_grid_size": (4, 3), **VARIANTS[variant], **changes}  # fmt: skip
    return perturb(NaFlexVit(NaFlexVitCfg(**arguments), num_classes=7))


def make_sequences(
    grids: list[tuple[int, int]] = GRIDS, length: int = 14, n_pixels: int = 8 * 6 * 3, seed: int = 1
) -> dict[str, Tensor]:
    """Random patches of each grid, padded to a length."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.zeros(len(grids), length, n_pixels)
    coordinates = torch.zeros(len(grids), length, 2, dtype=torch.long)
    valid = torch.zeros(len(grids), length, dtype=torch.bool)
    for image, (height, width) in enumerate(grids):
        n_patches = height * width
        patches[image, :n_patches] = torch.randn(n_patches, n_pixels, generator=generator)
        coordinates[image, :n_patches] = torch.cartesian_prod(torch.arange(height), torch.arange(width))
        valid[image, :n_patches] = True
    return {"patches": patches, "patch_coord": coordinates, "patch_valid": valid}
