"""timm's Eva (EVA, EVA-02, DINOv3, Perception Encoder, RoPE-ViT, Sapiens2): config and weights, from the module."""

from typing import Any, cast

from timm import layers
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn

from hooked_vit.components.rotary import made_rope
from hooked_vit.config import HookedViTConfig, RotaryConfig
from hooked_vit.porting.embedding_and_head import read_head, read_patch_embedding
from hooked_vit.porting.hidden_computation import (
    refuse_changed_buffer,
    refuse_hidden_computation,
    refuse_replaced_methods,
    refuse_unknown_parts,
)
from hooked_vit.porting.parts import (
    has_query_bias,
    read_block_norms,
    read_blocks,
    read_gate,
    read_mlp,
    read_norm,
    refuse,
)
from hooked_vit.porting.weights import join_projections, renamed_weights

_BLOCKS, _ATTENTIONS = (EvaBlock, EvaBlockPostNorm), (EvaAttention, layers.AttentionRope)
PARTS = (
    *_BLOCKS, *_ATTENTIONS, layers.RotaryEmbeddingCat, layers.RotaryEmbeddingDinoV3, layers.RotaryEmbeddingMixed,
    layers.RotaryEmbeddingMRope,
)  # fmt: skip


def read_config(module: Any) -> HookedViTConfig:
    """The config of an Eva, read from its parts.

    Raises:
        ValueError: If a part is not covered; the message names it.
    """
    refuse_replaced_methods(module, Eva, ("forward", "forward_features", "forward_head", "pool", "_pos_embed"))
    refuse_hidden_computation(module)
    blocks = read_blocks(module.blocks, read_block)
    rotary = read_rope(module)
    if module.pos_embed is None:
        positions = "none"
    else:
        positions = "patches" if module.no_embed_class else "tokens"
    weight = next(module.parameters())
    head = read_head(module)
    cfg = HookedViTConfig(
        d_model=module.embed_dim,
        **blocks,
        **read_patch_embedding(module.patch_embed),
        **head,
        dynamic_image_size=module.dynamic_img_size,
        has_cls=module.cls_token is not None,
        n_registers=0 if module.reg_token is None else module.reg_token.shape[1],
        positions=positions,
        rotary=rotary,
        pre_norm=read_norm(module.norm_pre, "norm_pre"),
        # timm's attention pool attends to all tokens here, its averages leave the prefix out
        pool_includes_prefix=head["pool"] == "attention",
        device=weight.device,
        dtype=weight.dtype,
    )
    refuse_changed_rope(module, cfg)
    refuse_unknown_parts(module, Eva, PARTS)
    return cfg


def read_block(block: Any, where: str) -> dict[str, Any]:
    """The config fields of an EvaBlock or EvaBlockPostNorm."""
    if type(block) not in _BLOCKS:
        refuse(f"a {type(block).__name__} as {where}")
    attn = block.attn
    if type(attn) not in _ATTENTIONS:
        refuse(f"{type(attn).__name__} in {where}")
    scales = [getattr(block, f"gamma_{index}", None) is not None for index in (1, 2)]
    if scales == [False, True]:
        refuse(f"LayerScale on the MLP alone in {where}")
    return {
        **read_attention(attn, where),
        "attn_inner_norm": read_norm(attn.norm, f"the norm inside the attention of {where}"),
        "qk_norm": read_norm(attn.q_norm, f"q_norm of {where}"),
        "gated_attn": read_gate(attn, where),
        "block_norm": read_block_norms(block, where),
        "post_norm": type(block) is EvaBlockPostNorm,
        "layer_scale": "attn" if scales == [True, False] else scales[0],
        **read_mlp(block.mlp, where),
    }


def read_attention(attn: Any, where: str) -> dict[str, Any]:
    """The config fields of queries, keys and values: one matrix or three, with a bias on all of them or none on keys.

    Raises:
        ValueError: If only some of the biases exist in another way.
    """
    joined = getattr(attn, "q_proj", None) is None
    d_head = (attn.qkv.out_features // 3 if joined else attn.q_proj.out_features) // attn.num_heads
    if joined:
        n_shared, k_bias = attn.num_heads, attn.qkv.bias is not None
        if getattr(attn, "k_bias", None) is not None and not attn.k_bias.is_meta and attn.k_bias.any():
            refuse(f"a bias of the keys that is not zero, in {where}")
    else:
        n_shared, k_bias = attn.k_proj.out_features // d_head, attn.k_proj.bias is not None
        if (attn.q_proj.bias is None) != (attn.v_proj.bias is None) or (k_bias and attn.q_proj.bias is None):
            refuse(f"a bias on only some of queries and values, in {where}")
    qkv_bias = has_query_bias(attn)
    return {
        "n_heads": attn.num_heads,
        "d_head": d_head,
        "n_key_value_heads": n_shared,
        "qkv_bias": qkv_bias,
        "k_bias": k_bias or not qkv_bias,
        "separate_qkv": not joined,
        "qkv_bias_separate": joined and qkv_bias and bool(getattr(attn, "qkv_bias_separate", False)),
        "attn_out_bias": attn.proj.bias is not None,
    }


def read_rope(module: Any) -> RotaryConfig | None:
    """The rotary positions of a model whose `rope` is one of timm's modules, or `None`.

    Raises:
        ValueError: If they are of another kind, or a block applies them in another way.
    """
    if module.rope is None:
        return None
    rotary = _read_rope(module.rope)
    for index, block in enumerate(module.blocks):
        attn = block.attn
        if bool(attn.rotate_half) != (rotary.rotate_half or rotary.kind == "mrope"):
            refuse(f"attention that rotates other numbers together than the rotary positions say, in block {index}")
        if attn.num_prefix_tokens != module.num_prefix_tokens:
            refuse(f"attention with another number of prefix tokens than the model's, in block {index}")
    return rotary


def refuse_changed_rope(module: Any, cfg: HookedViTConfig) -> None:
    """Raise ValueError unless the buffers of rotary positions are what timm computes from the architecture."""
    if cfg.rotary is not None:
        buffers = dict(module.get_submodule("rope").named_buffers())
        for name, values in made_rope(cfg).named_buffers():
            refuse_changed_buffer(buffers[name], values, f"rope.{name}")


def _read_rope(rope: nn.Module) -> RotaryConfig:
    kind, found = type(rope), cast(Any, rope)
    shared = {"temperature": float(found.temperature), "grid_indexing": found.grid_indexing}
    if kind is layers.RotaryEmbeddingCat:
        if found.in_pixels or found.grid_type != "index":
            refuse("rotary positions in pixels, or of a centred grid")
        reference = None if found.ref_feat_shape is None else tuple(found.ref_feat_shape)
        return RotaryConfig(
            "cat", rotate_half=found.rotate_half, grid_offset=found.grid_offset, reference_grid=reference, **shared
        )
    if kind is layers.RotaryEmbeddingDinoV3:
        shared["temperature"] = 0.0 if found.temperature is None else float(found.temperature)
        return RotaryConfig(
            "dinov3",
            rotate_half=found.rotate_half,
            grid_offset=found.grid_offset,
            normalize_coords=found.normalize_coords,
            min_period=found.min_period,
            max_period=found.max_period,
            **shared,
        )
    if kind is layers.RotaryEmbeddingMixed:
        return RotaryConfig("mixed", **shared)
    if kind is layers.RotaryEmbeddingMRope:
        return RotaryConfig("mrope", mrope_section=tuple(found.mrope_section), **shared)
    refuse(f"rotary positions by {kind.__name__}")


def read_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights of an Eva under HookedViT's names; the module's own tensors, except for joined projections.

    Raises:
        ValueError: If a tensor of the module has no name in a HookedViT.
    """
    return renamed_weights(join_projections(module.state_dict(keep_vars=True)))
