"""timm's VisionTransformer and VisionTransformerDistilled: config and weights, read from the module."""

import re
from typing import Any

from timm import layers
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn

from hooked_vit.config import HookedViTConfig, Pool
from hooked_vit.porting.hidden_computation import refuse_hidden_computation, refuse_unknown_parts
from hooked_vit.porting.parts import read_activation, read_mlp, read_norm, refuse
from hooked_vit.porting.stem import read_stem

_OTHER_FAMILIES = {
    "Eva": "Eva (rotary positions)",
    "Beit": "Beit (relative position bias)",
    "VisionTransformerRelPos": "VisionTransformerRelPos (relative position bias)",
    "NaFlexVit": "NaFlexVit (unset TIMM_USE_NAFLEXVIT to get a VisionTransformer)",
}
_FORWARD_METHODS = ("forward", "forward_features", "forward_head", "pool", "_pos_embed")

# timm's name -> HookedViT's. Tensors with a leading axis of length one lose it.
_RENAMES = [
    (r"patch_embed\.backbone\.", "embed.stem.backbone."),
    (r"patch_embed\.proj\.", "embed.patch."),
    (r"patch_embed\.norm\.", "embed.patch_ln."),
    (r"cls_token$", "embed.cls"),
    (r"dist_token$", "embed.dist"),
    (r"reg_token$", "embed.registers"),
    (r"pos_embed$", "embed.pos"),
    (r"norm_pre\.", "ln_pre."),
    (r"(?:fc_)?norm\.", "ln_final."),
    (r"(head|head_dist)\.", r"\1."),
    (r"attn_pool\.(latent|q\.|kv\.|q_norm\.|k_norm\.)", r"attn_pool.\1"),
    (r"attn_pool\.proj\.", "attn_pool.out."),
    (r"attn_pool\.norm\.", "attn_pool.ln."),
    (r"attn_pool\.mlp\.fc1\.", "attn_pool.mlp.inp."),
    (r"attn_pool\.mlp\.fc2\.", "attn_pool.mlp.out."),
    (r"blocks\.(\d+)\.norm([12])\.", r"blocks.\1.ln\2."),
    (r"blocks\.(\d+)\.ls([12])\.gamma$", r"blocks.\1.ls\2"),
    (r"blocks\.(\d+)\.attn\.(qkv|q_norm|k_norm)\.", r"blocks.\1.attn.\2."),
    (r"blocks\.(\d+)\.attn\.norm\.", r"blocks.\1.attn.ln."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"blocks.\1.attn.out."),
    (r"blocks\.(\d+)\.mlp\.(?:fc1_g|w0)\.", r"blocks.\1.mlp.gate."),
    (r"blocks\.(\d+)\.mlp\.(?:fc1|fc1_x|w1)\.", r"blocks.\1.mlp.inp."),
    (r"blocks\.(\d+)\.mlp\.norm\.", r"blocks.\1.mlp.ln."),
    (r"blocks\.(\d+)\.mlp\.input_norm\.", r"blocks.\1.mlp.ln_in."),
    (r"blocks\.(\d+)\.mlp\.(?:fc2|w2)\.", r"blocks.\1.mlp.out."),
]
_WITH_LEADING_AXIS = {"cls_token", "dist_token", "reg_token", "pos_embed", "attn_pool.latent"}


def read_config(module: nn.Module) -> HookedViTConfig:
    """The config of a timm module, read from its parts and never from its name.

    Raises:
        ValueError: If a part is not covered; the message names it.
    """
    if not isinstance(module, VisionTransformer):
        name = type(module).__name__
        refuse(f"the family {_OTHER_FAMILIES.get(name, name)}")
    distilled = isinstance(module, VisionTransformerDistilled)
    base = VisionTransformerDistilled if distilled else VisionTransformer
    for method in _FORWARD_METHODS:
        if getattr(type(module), method) is not getattr(base, method):
            refuse(f"{type(module).__name__}.{method}, which replaces {base.__name__}'s own")
    refuse_hidden_computation(module)
    if len(module.blocks) == 0:
        refuse("a model without blocks")
    per_block = [_read_block(block, f"block {index}") for index, block in enumerate(module.blocks)]
    for index, fields in enumerate(per_block):
        differing = [name for name, value in fields.items() if value != per_block[0][name]]
        if differing:
            refuse(f"blocks of different kinds (block {index} and block 0 differ in {', '.join(differing)})")
    weight = next(module.parameters())
    cfg = HookedViTConfig(
        n_layers=len(module.blocks),
        d_model=module.embed_dim,
        **per_block[0],
        **_read_embedding(module, distilled),
        **_read_head(module, distilled),
        device=weight.device,
        dtype=weight.dtype,
    )
    refuse_unknown_parts(module)
    return cfg


def _read_block(block: Any, where: str) -> dict[str, Any]:
    if type(block) not in (Block, ResPostBlock):
        refuse(f"a {type(block).__name__} as {where}")
    attn = block.attn
    if type(attn) is not layers.Attention:
        refuse(f"{type(attn).__name__} in {where}")
    if getattr(attn, "gate", None) is not None:
        refuse(f"gated attention in {where}")
    block_norm, second_norm = read_norm(block.norm1, f"norm1 of {where}"), read_norm(block.norm2, f"norm2 of {where}")
    if block_norm is None or block_norm != second_norm:
        refuse(f"norm1 and norm2 of different kinds, or none, in {where}")
    post_norm = type(block) is ResPostBlock
    scales = [not post_norm and isinstance(scale, layers.LayerScale) for scale in _layer_scales(block)]
    if scales[0] != scales[1]:
        refuse(f"LayerScale on only one sub-layer in {where}")
    return {
        "n_heads": attn.num_heads,
        "d_head": attn.head_dim,
        "qkv_bias": attn.qkv.bias is not None,
        "attn_out_bias": attn.proj.bias is not None,
        "qk_norm": read_norm(attn.q_norm, f"q_norm of {where}"),
        "attn_inner_norm": read_norm(attn.norm, f"the norm inside the attention of {where}"),
        "block_norm": block_norm,
        "post_norm": post_norm,
        "layer_scale": scales[0],
        **read_mlp(block.mlp, where),
    }


def _layer_scales(block: nn.Module) -> tuple[nn.Module | None, nn.Module | None]:
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
    if type(embed) not in (layers.PatchEmbed, layers.HybridEmbed):
        refuse(f"a patch embedding by {type(embed).__name__}")
    conv = embed.proj
    if isinstance(conv, nn.Conv2d) and (
        conv.kernel_size != conv.stride or conv.padding != (0, 0) or conv.groups != 1 or conv.dilation != (1, 1)
    ):
        refuse("a patch embedding whose patches overlap, are padded, grouped or dilated")
    if embed.img_size is None:
        refuse("a patch embedding without an image size (img_size=None)")
    if type(embed) is layers.HybridEmbed:
        # without positions, nothing in timm's model depends on the size
        return read_stem(embed, dynamic=module.dynamic_img_size or module.pos_embed is None)
    return {
        "image_size": layers.to_2tuple(embed.img_size),
        "patch_size": layers.to_2tuple(embed.patch_size),
        "n_channels": conv.in_channels,
        "dynamic_image_size": module.dynamic_img_size,
        "pad_to_patches": embed.dynamic_img_pad,
        "patch_bias": conv.bias is not None,
        "patch_norm": read_norm(embed.norm, "the norm of the patch embedding"),
    }


def _read_head(module: VisionTransformer, distilled: bool) -> dict[str, Any]:
    before, after = read_norm(module.norm, "norm"), read_norm(module.fc_norm, "fc_norm")
    if after is not None and (before is not None or distilled):
        refuse("fc_norm together with another final norm" if before is not None else "fc_norm in a distilled model")
    for head in (module.head, *((module.head_dist,) if distilled else ())):
        if not isinstance(head, nn.Linear | nn.Identity):
            refuse(
                f"a {type(head).__name__} as the head (replace it by torch.nn.Identity(), port, and use "
                "`with_class_embeddings` for a linear readout)"
            )
    pools: dict[str, Pool] = {"token": "cls", "avg": "avg", "max": "max", "avgmax": "avgmax"}
    fields: dict[str, Any] = {}
    if distilled:
        pool = "cls_and_dist"
    elif module.attn_pool is not None:
        pool, fields = "attention", _read_attention_pool(module.attn_pool)
    elif module.global_pool in pools:
        pool = pools[module.global_pool]
    else:
        refuse(f"global_pool={module.global_pool!r}, features that are not pooled; create it with global_pool='avg'")
    if pool == "cls" and module.cls_token is None:
        refuse("token pooling without a CLS token")
    return {
        "n_classes": module.head.out_features if isinstance(module.head, nn.Linear) else 0,
        "head_bias": not isinstance(module.head, nn.Linear) or module.head.bias is not None,
        "final_norm": after if before is None else before,
        "norm_after_pool": after is not None,
        "pool": pool,
        "pool_includes_prefix": module.pool_include_prefix,
        **fields,
    }


def _read_attention_pool(pool: Any) -> dict[str, Any]:
    if type(pool) is not layers.AttentionPoolLatent:
        refuse(f"pooling by {type(pool).__name__}")
    if pool.latent_len != 1 or pool.pos_embed is not None or not isinstance(pool.q, nn.Linear) or pool.mlp is None:
        refuse("an attention pool with several queries, positions, a query without projection, or no MLP")
    if pool.pool != "token" or pool.latent_dim != pool.kv.in_features or pool.out_features != pool.kv.in_features:
        refuse("an attention pool of another width than the model's, or that averages")
    mlp = read_mlp(pool.mlp, "the attention pool")
    if mlp["mlp_kind"] != "plain" or mlp["mlp_inner_norm"] is not None or mlp["mlp_bias"] != (True, True):
        refuse("a gated or normed MLP, or one without bias, in the attention pool")
    return {
        "pool_n_heads": pool.num_heads,
        "pool_d_mlp": mlp["d_mlp"],
        "pool_act_fn": read_activation(pool.mlp.act, "the attention pool"),
        "pool_qkv_bias": pool.kv.bias is not None,
        "pool_norm": read_norm(pool.norm, "the norm of the attention pool"),
        "pool_qk_norm": read_norm(pool.q_norm, "q_norm of the attention pool"),
    }


def read_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a timm module under HookedViT's names; the tensors are the module's own.

    Raises:
        ValueError: If a tensor of the module has no name in a HookedViT.
    """
    weights, unknown = {}, []
    # timm calls a norm before the matrices of an MLP as it calls one after the activation
    geglus = [name for name, part in module.named_modules() if isinstance(part, GeGluMlp)]
    for name, tensor in module.state_dict(keep_vars=True).items():
        owner = next((geglu for geglu in geglus if name.startswith(f"{geglu}.norm.")), None)
        renamed = _rename(name if owner is None else name.replace(".mlp.norm.", ".mlp.input_norm."))
        if renamed is None or renamed in weights:
            unknown.append(name)
        else:
            weights[renamed] = tensor[0] if name in _WITH_LEADING_AXIS else tensor
    if unknown:
        raise ValueError(f"{len(unknown)} tensors of the module have no name in a HookedViT: {', '.join(unknown)}")
    return weights


def _rename(name: str) -> str | None:
    for pattern, replacement in _RENAMES:
        renamed, n_matches = re.subn(rf"^{pattern}", replacement, name)
        if n_matches:
            return renamed
    return None
