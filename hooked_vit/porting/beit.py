"""timm's Beit (BEiT, BEiT v2): config and weights, read from the module."""

from typing import Any

from timm.models.beit import Attention, Beit, Block, RelativePositionBias
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
from hooked_vit.porting.parts import read_block_norms, read_blocks, read_mlp, refuse
from hooked_vit.porting.weights import renamed_weights

_TABLE = "relative_position_bias_table"
_RENAMES = [
    (rf"rel_pos_bias\.{_TABLE}$", f"relative_bias.rel_pos.{_TABLE}"),
    (rf"blocks\.(\d+)\.attn\.{_TABLE}$", rf"blocks.\1.attn.relative_bias.rel_pos.{_TABLE}"),
]


def read_config(module: Any) -> HookedViTConfig:
    """The config of a Beit, read from its parts.

    Raises:
        ValueError: If a part is not covered; the message names it.
    """
    refuse_replaced_methods(module, Beit, ("forward", "forward_features", "forward_head"))
    refuse_hidden_computation(module)
    blocks = read_blocks(module.blocks, _read_block)
    own, shared = blocks.pop("has_bias"), module.rel_pos_bias is not None
    if own and shared:
        refuse("a relative position bias of each block together with one that all blocks share")
    weight = next(module.parameters())
    cfg = HookedViTConfig(
        d_model=module.embed_dim,
        **blocks,
        **read_patch_embedding(module.patch_embed),
        **read_head(module),
        positions="none" if module.pos_embed is None else "tokens",
        relative_bias=RelativeBiasConfig("table", shared=shared) if own or shared else None,
        device=weight.device,
        dtype=weight.dtype,
    )
    if cfg.relative_bias is not None:
        expected = made_relative_bias(cfg).get_buffer("relative_position_index")
        for part in [module.rel_pos_bias] if shared else [block.attn for block in module.blocks]:
            refuse_changed_buffer(part.relative_position_index.flatten(), expected, "relative_position_index")
    refuse_unknown_parts(module, Beit, (Attention, Block, RelativePositionBias))
    return cfg


def _read_block(block: Any, where: str) -> dict[str, Any]:
    if type(block) is not Block:
        refuse(f"a {type(block).__name__} as {where}")
    attn = block.attn
    if type(attn) is not Attention:
        refuse(f"{type(attn).__name__} in {where}")
    if (block.gamma_1 is None) != (block.gamma_2 is None):
        refuse(f"LayerScale on only one sub-layer in {where}")
    return {
        **read_attention(attn, where),
        "has_bias": attn.relative_position_bias_table is not None,
        "block_norm": read_block_norms(block, where),
        "layer_scale": block.gamma_1 is not None,
        **read_mlp(block.mlp, where),
    }


def read_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a Beit under HookedViT's names; the tensors are the module's own.

    Raises:
        ValueError: If a tensor of the module has no name in a HookedViT.
    """
    return renamed_weights(module.state_dict(keep_vars=True), _RENAMES)
