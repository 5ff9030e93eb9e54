"""timm's VisionTransformer and VisionTransformerDistilled: config and weights, read from the module."""

from typing import Any

from timm import layers
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, ParallelThingsBlock, ResPostBlock, VisionTransformer
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn

from hooked_vit.config import HookedViTConfig
from hooked_vit.porting.embedding_and_head import (
    read_head,
    read_linear_head,
    read_patch_embedding,
    refuse_other_heads,
    refuse_other_projections,
)
from hooked_vit.porting.hidden_computation import (
    refuse_hidden_computation,
    refuse_replaced_methods,
    refuse_unknown_parts,
)
from hooked_vit.porting.parallel_blocks import (
    DIFFERENTIAL_RENAMES,
    PARALLEL_BLOCKS,
    as_block_tensors,
    read_differential,
    read_parallel_block,
)
from hooked_vit.porting.parts import read_block_norms, read_blocks, read_gate, read_mlp, read_norm, refuse
from hooked_vit.porting.stem import read_stem
from hooked_vit.porting.things_block import THINGS_RENAMES, read_things_block
from hooked_vit.porting.weights import renamed_weights


def read_config(module: nn.Module) -> HookedViTConfig:
    """The config of a timm module, read from its parts and never from its name.

    Raises:
        ValueError: If a part is not covered; the message names it.
    """
    distilled = isinstance(module, VisionTransformerDistilled)
    base = VisionTransformerDistilled if distilled else VisionTransformer
    assert isinstance(module, base)
    refuse_replaced_methods(module, base, ("forward", "forward_features", "forward_head", "pool", "_pos_embed"))
    refuse_hidden_computation(module)
    weight = next(module.parameters())
    cfg = HookedViTConfig(
        d_model=module.embed_dim,
        **read_blocks(module.blocks, read_block),
        differential=read_differential(module.blocks),
        **_read_embedding(module, distilled),
        **_read_head(module, distilled),
        device=weight.device,
        dtype=weight.dtype,
    )
    refuse_unknown_parts(module)
    return cfg


def read_block(block: Any, where: str) -> dict[str, Any]:
    """The config fields of a block."""
    if type(block) in PARALLEL_BLOCKS:
        return read_parallel_block(block, where)
    if type(block) is ParallelThingsBlock:
        return read_things_block(block, where, _read_sublayers)
    if type(block) not in (Block, ResPostBlock):
        refuse(f"a {type(block).__name__} as {where}")
    return _read_sublayers(block, where)


def _read_sublayers(block: Any, where: str) -> dict[str, Any]:
    """The config fields of an attention and an MLP, each with its norm."""
    attn = block.attn
    if type(attn) not in (layers.Attention, layers.DiffAttention):
        refuse(f"{type(attn).__name__} in {where}")
    post_norm = type(block) is ResPostBlock
    scales = [not post_norm and isinstance(scale, layers.LayerScale) for scale in _layer_scales(block)]
    if scales[0] != scales[1]:
        refuse(f"LayerScale on only one sub-layer in {where}")
    return {
        "n_heads": attn.num_heads,
        "d_head": attn.head_dim * (2 if isinstance(attn, layers.DiffAttention) else 1),
        "qkv_bias": attn.qkv.bias is not None,
        "gated_attn": getattr(attn, "gate", None) is not None and read_gate(attn, where),
        "attn_out_bias": attn.proj.bias is not None,
        "qk_norm": read_norm(attn.q_norm, f"q_norm of {where}"),
        "attn_inner_norm": read_norm(attn.norm, f"the norm inside the attention of {where}"),
        "block_norm": read_block_norms(block, where),
        "post_norm": post_norm,
        "layer_scale": scales[0],
        **read_mlp(block.mlp, where),
    }


def _layer_scales(block: Any) -> tuple[nn.Module | None, nn.Module | None]:
    return getattr(block, "ls1", None), getattr(block, "ls2", None)


def _read_embedding(module: VisionTransformer, distilled: bool) -> dict[str, Any]:
    if distilled and module.reg_token is not None:
        refuse("registers together with a distillation token, which timm itself ignores")
    if module.pos_embed is None:
        positions = "none"
    else:
        positions = "patches" if module.no_embed_class else "tokens"
    return {
        **_read_patches(module),
        "has_cls": module.cls_token is not None,
        "has_dist": distilled,
        "n_registers": 0 if module.reg_token is None else module.reg_token.shape[1],
        "positions": positions,
        "pre_norm": read_norm(module.norm_pre, "norm_pre"),
    }


def _read_patches(module: VisionTransformer) -> dict[str, Any]:
    embed: Any = module.patch_embed
    if type(embed) is layers.HybridEmbed:
        refuse_other_projections(embed)
        # without positions, nothing in timm's model depends on the size
        return read_stem(embed, dynamic=module.dynamic_img_size or module.pos_embed is None)
    return {**read_patch_embedding(embed), "dynamic_image_size": module.dynamic_img_size}


def _read_head(module: VisionTransformer, distilled: bool) -> dict[str, Any]:
    if not distilled:
        return {**read_head(module), "pool_includes_prefix": module.pool_include_prefix}
    if read_norm(module.fc_norm, "fc_norm") is not None:
        refuse("fc_norm in a distilled model")
    assert isinstance(module, VisionTransformerDistilled)
    refuse_other_heads(module.head, module.head_dist)
    return {
        **read_linear_head(module.head),
        "final_norm": read_norm(module.norm, "norm"),
        "pool": "cls_and_dist",
        "pool_includes_prefix": module.pool_include_prefix,
    }


def read_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a timm module under HookedViT's names; the tensors are the module's own.

    Raises:
        ValueError: If a tensor of the module has no name in a HookedViT.
    """
    # timm calls a norm before the matrices of an MLP as it calls one after the activation
    geglus = [name for name, part in module.named_modules() if isinstance(part, GeGluMlp)]
    tensors = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        is_input_norm = any(name.startswith(f"{geglu}.norm.") for geglu in geglus)
        tensors[name.replace(".mlp.norm.", ".mlp.input_norm.") if is_input_norm else name] = tensor
    return renamed_weights(as_block_tensors(tensors, module.blocks), [*DIFFERENTIAL_RENAMES, *THINGS_RENAMES])
