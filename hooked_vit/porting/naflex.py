"""timm's NaFlexVit: config and weights, read from the module."""

from typing import Any

from timm.models.eva import EvaBlock
from timm.models.naflexvit import NaFlexEmbeds, NaFlexVit
from torch import Tensor

from hooked_vit.config import HookedViTConfig
from hooked_vit.embedding_config import GridPositions, LinearPatches
from hooked_vit.porting import eva, vision_transformer
from hooked_vit.porting.embedding_and_head import read_head
from hooked_vit.porting.hidden_computation import (
    refuse_hidden_computation,
    refuse_replaced_methods,
    refuse_unknown_parts,
)
from hooked_vit.porting.parts import read_blocks, read_norm, refuse
from hooked_vit.porting.weights import join_projections, renamed_weights

_METHODS = ("forward", "forward_features", "forward_head", "_forward_embeds", "_pool")
_RENAMES = [
    (r"embeds\.proj\.", "embed.patch."),
    (r"embeds\.norm\.", "embed.patch_ln."),
    (r"embeds\.cls_token$", "embed.cls"),
    (r"embeds\.reg_token$", "embed.registers"),
    (r"embeds\.pos_embed$", "embed.pos"),
    (r"embeds\.pos_embed_y$", "embed.pos_rows"),
    (r"embeds\.pos_embed_x$", "embed.pos_columns"),
]


def read_config(module: NaFlexVit) -> HookedViTConfig:
    """The config of a NaFlexVit.

    Raises:
        ValueError: If a part is not covered; the message names it.
    """
    refuse_replaced_methods(module, NaFlexVit, _METHODS)
    if type(module.embeds) is not NaFlexEmbeds:
        refuse(f"an embedding by {type(module.embeds).__name__}")
    refuse_hidden_computation(module)
    blocks = read_blocks(module.blocks, _read_block)
    rotary = eva.read_rope(module)
    weight = next(module.parameters())
    cfg = HookedViTConfig(
        d_model=module.embed_dim,
        **blocks,
        **_read_embedding(module, module.embeds),
        **read_head(module, has_cls=module.embeds.cls_token is not None),
        rotary=rotary,
        pool_includes_prefix=module.pool_include_prefix,
        device=weight.device,
        dtype=weight.dtype,
    )
    eva.refuse_changed_rope(module, cfg)
    refuse_unknown_parts(module, NaFlexVit, (NaFlexEmbeds, *eva.PARTS))
    return cfg


def _read_block(block: Any, where: str) -> dict[str, Any]:
    reader = eva if isinstance(block, EvaBlock) else vision_transformer
    return reader.read_block(block, where)


def _read_embedding(module: NaFlexVit, embeds: Any) -> dict[str, Any]:
    if embeds.norm_input is not None:
        refuse("a norm of the pixels before they are projected")
    linear = LinearPatches(embeds.channels_last, embeds.channels_last) if embeds.is_linear else None
    return {
        "image_size": _image_size(module),
        "patch_size": embeds.patch_size,
        "n_channels": embeds.in_chans,
        "dynamic_image_size": True,
        "pad_to_patches": embeds.dynamic_img_pad,
        "has_cls": embeds.cls_token is not None,
        "n_registers": embeds.num_reg_tokens,
        "positions": {"learned": "patches", "factorized": "axes", "none": "none"}[embeds.pos_embed_type],
        "grid_positions": _read_positions(embeds),
        "linear_patches": linear,
        "patch_bias": embeds.proj.bias is not None,
        "patch_norm": read_norm(embeds.norm, "the norm of the patch embedding"),
        "pre_norm": read_norm(module.norm_pre, "norm_pre"),
    }


def _image_size(module: Any) -> tuple[int, int]:
    """The size that the model was made for, or that its preprocessing makes, or that its positions were learnt on."""
    embeds = module.embeds
    pretrained = getattr(module, "pretrained_cfg", None) or {}
    if embeds.default_img_size is not None:
        height, width = embeds.default_img_size
    elif pretrained.get("input_size"):
        _, height, width = pretrained["input_size"]
    elif embeds.pos_embed_grid_size is None:
        refuse("a patch embedding without an image size (img_size=None)")
    else:
        height, width = (n * size for n, size in zip(embeds.pos_embed_grid_size, embeds.patch_size, strict=True))
    return height, width


def _read_positions(embeds: Any) -> GridPositions | None:
    if embeds.pos_embed_type == "none":
        return None
    return GridPositions(
        grid=embeds.pos_embed_grid_size,
        kind="grid" if embeds.pos_embed_type == "learned" else "axes",
        mode=embeds.pos_embed_interp_mode,
        # timm before 1.0.31 always antialiases, and never aligns the corners
        antialias=getattr(embeds, "pos_embed_antialias", True),
        align_corners=getattr(embeds, "pos_embed_align_corners", False),
        keep_aspect=embeds.pos_embed_ar_preserving,
        sampled=embeds.pos_embed_use_grid_sample,
    )


def read_weights(module: NaFlexVit) -> dict[str, Tensor]:
    """The weights of a NaFlexVit under HookedViT's names; the module's own tensors, except for joined projections.

    Raises:
        ValueError: If a tensor of the module has no name in a HookedViT.
    """
    weights = renamed_weights(join_projections(module.state_dict(keep_vars=True)), _RENAMES)
    for name in ("cls", "registers", "pos", "pos_rows", "pos_columns"):
        if f"embed.{name}" in weights:
            weights[f"embed.{name}"] = weights[f"embed.{name}"].flatten(0, -2)
    return weights
