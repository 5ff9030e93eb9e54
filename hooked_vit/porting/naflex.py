"""timm's NaFlexVit: config and weights, read from the module."""

from typing import Any

from timm.models.naflexvit import NaFlexEmbeds, NaFlexVit
from torch import Tensor

from hooked_vit.config import GridPositions, HookedViTConfig, LinearPatches
from hooked_vit.porting.hidden_computation import refuse_hidden_computation, refuse_unknown_parts
from hooked_vit.porting.parts import read_norm, refuse
from hooked_vit.porting.vision_transformer import read_blocks, read_head, renamed

# timm's name -> HookedViT's, besides those of blocks and heads
_RENAMES = [
    (r"embeds\.proj\.", "embed.patch."),
    (r"embeds\.norm\.", "embed.patch_ln."),
    (r"embeds\.cls_token$", "embed.cls"),
    (r"embeds\.reg_token$", "embed.registers"),
    (r"embeds\.pos_embed$", "embed.pos"),
    (r"embeds\.pos_embed_y$", "embed.pos_rows"),
    (r"embeds\.pos_embed_x$", "embed.pos_columns"),
]
_WITH_LEADING_AXIS = {
    f"embeds.{name}" for name in ("cls_token", "reg_token", "pos_embed", "pos_embed_y", "pos_embed_x")
}


def read_naflex_config(module: NaFlexVit) -> HookedViTConfig:
    """The config of a NaFlexVit.

    Raises:
        ValueError: If a part is not covered; the message names it.
    """
    if type(module) is not NaFlexVit:
        refuse(f"{type(module).__name__}, a subclass of NaFlexVit")
    if type(module.embeds) is not NaFlexEmbeds:
        refuse(f"an embedding by {type(module.embeds).__name__}")
    refuse_hidden_computation(module)
    weight = next(module.parameters())
    cfg = HookedViTConfig(
        n_layers=len(module.blocks),
        d_model=module.embed_dim,
        **read_blocks(module.blocks),
        **_read_embedding(module, module.embeds),
        **read_head(module, has_cls=module.embeds.cls_token is not None),
        device=weight.device,
        dtype=weight.dtype,
    )
    refuse_unknown_parts(module)
    return cfg


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


def read_naflex_weights(module: NaFlexVit) -> dict[str, Tensor]:
    """The weights of a NaFlexVit under HookedViT's names; the tensors are the module's own."""
    weights = renamed(module, _RENAMES, _WITH_LEADING_AXIS)
    if "embed.pos" in weights:
        weights["embed.pos"] = weights["embed.pos"].flatten(0, 1)
    return weights
