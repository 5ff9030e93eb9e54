"""timm's VisionTransformerRelPos (relative position bias, post-norm, shared bias): config and weights."""

from typing import Any, cast

from timm import layers
from timm.models.vision_transformer_relpos import (
    RelPosAttention,
    RelPosBlock,
    ResPostRelPosBlock,
    VisionTransformerRelPos,
)
from torch import Tensor, nn

from hooked_vit.components.relative_bias import made_relative_bias
from hooked_vit.config import HookedViTConfig, RelativeBiasConfig
from hooked_vit.porting.embedding_and_head import read_head, read_patch_embedding
from hooked_vit.porting.eva import read_attention
from hooked_vit.porting.hidden_computation import (
    refuse_changed_buffer,
    refuse_hidden_computation,
    refuse_replaced_methods,
    refuse_unknown_parts,
)
from hooked_vit.porting.parts import read_block_norms, read_blocks, read_mlp, read_norm, refuse
from hooked_vit.porting.weights import renamed_weights

_RENAMES = [
    (r"shared_rel_pos\.", "relative_bias.rel_pos."),
    (r"blocks\.(\d+)\.attn\.rel_pos\.", r"blocks.\1.attn.relative_bias.rel_pos."),
]

_PARTS = (RelPosAttention, RelPosBlock, ResPostRelPosBlock, layers.RelPosBias, layers.RelPosMlp)


def read_config(module: Any) -> HookedViTConfig:
    """The config of a VisionTransformerRelPos, read from its parts.

    Raises:
        ValueError: If a part is not covered; the message names it.
    """
    refuse_replaced_methods(module, VisionTransformerRelPos, ("forward", "forward_features", "forward_head"))
    refuse_hidden_computation(module)
    blocks = read_blocks(module.blocks, _read_block)
    own, shared = blocks.pop("own_bias"), None
    if module.shared_rel_pos is not None:
        shared = _read_bias(module.shared_rel_pos, "all blocks", shared=True)
    if own is not None and shared is not None:
        refuse("a relative position bias of each block together with one that all blocks share")
    weight = next(module.parameters())
    cfg = HookedViTConfig(
        d_model=module.embed_dim,
        **blocks,
        **read_patch_embedding(module.patch_embed),
        **read_head(module),
        has_cls=module.cls_token is not None,
        positions="none",
        relative_bias=own or shared,
        device=weight.device,
        dtype=weight.dtype,
    )
    if cfg.relative_bias is not None:
        expected = dict(made_relative_bias(cfg).named_buffers())
        for part in [module.shared_rel_pos] if shared else [block.attn.rel_pos for block in module.blocks]:
            for name, values in expected.items():
                refuse_changed_buffer(getattr(part, name), values, name)
    refuse_unknown_parts(module, VisionTransformerRelPos, _PARTS)
    return cfg


def _read_block(block: Any, where: str) -> dict[str, Any]:
    if type(block) not in (RelPosBlock, ResPostRelPosBlock):
        refuse(f"a {type(block).__name__} as {where}")
    attn = block.attn
    if type(attn) is not RelPosAttention:
        refuse(f"{type(attn).__name__} in {where}")
    scales = [isinstance(getattr(block, name, None), layers.LayerScale) for name in ("ls1", "ls2")]
    if scales[0] != scales[1]:
        refuse(f"LayerScale on only one sub-layer in {where}")
    return {
        **read_attention(attn, where),
        "own_bias": None if attn.rel_pos is None else _read_bias(attn.rel_pos, where),
        "qk_norm": read_norm(attn.q_norm, f"q_norm of {where}"),
        "block_norm": read_block_norms(block, where),
        "post_norm": type(block) is ResPostRelPosBlock,
        "layer_scale": scales[0],
        **read_mlp(block.mlp, where),
    }


def _read_bias(rel_pos: nn.Module, where: str, shared: bool = False) -> RelativeBiasConfig:
    if type(rel_pos) is layers.RelPosBias:
        return RelativeBiasConfig("table", shared)
    if type(rel_pos) is not layers.RelPosMlp:
        refuse(f"a relative position bias by {type(rel_pos).__name__} in {where}")
    found = cast(Any, rel_pos)
    pretrained = tuple(found.pretrained_window_size)
    return RelativeBiasConfig("mlp", shared, found.mlp.fc1.out_features, found.mode, cast(Any, pretrained))


def read_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a VisionTransformerRelPos under HookedViT's names; the tensors are the module's own.

    Raises:
        ValueError: If a tensor of the module has no name in a HookedViT.
    """
    return renamed_weights(module.state_dict(keep_vars=True), _RENAMES)
