"""timm's vision towers of Qwen3-VL and DeepSeek-V4, alone or under a classifier: config and weights, from the module.

The projector to the language model joins several patches into one token of another width, which no longer is a token of
the residual stream. It is left out: a tower that has one enters as the same tower with its patches averaged.
"""

from typing import Any

from timm import layers
from timm.models.deepseek_vit import (
    DeepseekVitAligner,
    DeepseekVitBlock,
    DeepseekVitClassifier,
    DeepseekVitEncoder,
)
from timm.models.qwen3_vit import Qwen3VitClassifier, Qwen3VitEncoder, Qwen3VitPatchMerger
from torch import Tensor, nn

from hooked_vit.config import HookedViTConfig
from hooked_vit.embedding_config import GridPositions
from hooked_vit.porting import eva
from hooked_vit.porting.embedding_and_head import read_linear_head, read_patch_embedding, refuse_other_heads
from hooked_vit.porting.hidden_computation import (
    refuse_hidden_computation,
    refuse_replaced_methods,
    refuse_unknown_parts,
)
from hooked_vit.porting.parts import read_block_norms, read_blocks, read_mlp, read_norm, refuse
from hooked_vit.porting.weights import renamed_weights

CLASSES = (Qwen3VitEncoder, Qwen3VitClassifier, DeepseekVitEncoder, DeepseekVitClassifier)
_PARTS = (*CLASSES, Qwen3VitPatchMerger, DeepseekVitAligner, DeepseekVitBlock, *eva.PARTS)


def encoder_of(module: Any) -> Any:
    """The tower, without its classifier."""
    return module.encoder if isinstance(module, Qwen3VitClassifier | DeepseekVitClassifier) else module


def left_out(module: Any) -> str | None:
    """The part of a module that its port does not have, as a phrase; `None` if it has all."""
    encoder = encoder_of(module)
    for name in ("merger", "aligner"):
        if getattr(encoder, name, None) is not None:
            behind = " and the classifier behind it" if module is not encoder else ""
            return f"the projector '{name}'{behind}, which joins several patches into one token of another width"
    return None


def original_output(module: Any, images: Tensor) -> Tensor:
    """What a port's logits must equal: the module's output, or the mean of its patches if it has a projector."""
    if left_out(module) is None:
        return module(images)
    return encoder_of(module).forward_features(images).mean(dim=(1, 2))


def read_config(module: Any) -> HookedViTConfig:
    """The config of a tower, or of a classifier on one.

    Raises:
        ValueError: If a part is not covered; the message names it.
    """
    base = next(cls for cls in CLASSES if isinstance(module, cls))
    refuse_replaced_methods(module, base, ("forward", "forward_features", "forward_head"))
    refuse_hidden_computation(module)
    encoder = encoder_of(module)
    weight = next(module.parameters())
    cfg = HookedViTConfig(
        d_model=encoder.embed_dim,
        **read_blocks(encoder.blocks, _read_block),
        **read_patch_embedding(encoder.patch_embed),
        **_read_positions(encoder),
        **_read_head(module, encoder),
        dynamic_image_size=True,
        has_cls=False,
        rotary=eva.read_rope(encoder),
        device=weight.device,
        dtype=weight.dtype,
    )
    eva.refuse_changed_rope(encoder, cfg)
    refuse_unknown_parts(module, base, _PARTS)
    return cfg


def _read_block(block: Any, where: str) -> dict[str, Any]:
    if type(block) is not DeepseekVitBlock:
        return eva.read_block(block, where)
    if type(block.attn) is not layers.AttentionRope or block.attn.gate is not None:
        refuse(f"{type(block.attn).__name__}, or a gate, in {where}")
    return {
        **eva.read_attention(block.attn, where),
        "attn_inner_norm": read_norm(block.attn.norm, f"the norm inside the attention of {where}"),
        "qk_norm": read_norm(block.attn.q_norm, f"q_norm of {where}"),
        "block_norm": read_block_norms(block, where),
        **read_mlp(block.mlp, where),
    }


def _read_positions(encoder: Any) -> dict[str, Any]:
    if isinstance(encoder, DeepseekVitEncoder):
        return {"positions": "none"}
    side = encoder.pos_embed_grid_size
    # as timm.models.qwen3_vit.resample_pos_embed_grid
    positions = GridPositions((side, side), mode="bilinear", antialias=False, align_corners=True)
    return {"positions": "patches", "grid_positions": positions}


def _read_head(module: Any, encoder: Any) -> dict[str, Any]:
    before = read_norm(getattr(encoder, "norm", nn.Identity()), "the norm of the tower")
    whole = left_out(module) is None
    if whole and module.global_pool != "avg":
        refuse(f"global_pool={module.global_pool!r}, features that are not pooled: create it with global_pool='avg'")
    if not whole or module is encoder:
        return {"n_classes": 0, "final_norm": before, "pool": "avg"}
    refuse_other_heads(module.head)
    after = read_norm(module.norm, "the norm of the classifier")
    norms = {"final_norm": after, "norm_after_pool": after is not None}
    if before is not None:
        norms = {"final_norm": before, "pooled_norm": after}
    return {**read_linear_head(module.head), **norms, "pool": "avg"}


def read_weights(module: Any) -> dict[str, Tensor]:
    """The weights of a tower under HookedViT's names, without its projector; the tensors are the module's own.

    Raises:
        ValueError: If a tensor of the module has no name in a HookedViT.
    """
    tensors, prefix = dict(module.state_dict(keep_vars=True)), "" if encoder_of(module) is module else "encoder."
    if left_out(module) is not None:
        projector = (f"{prefix}merger.", f"{prefix}aligner.", *(("norm.", "head.") if prefix else ()))
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(projector)}
    renames = [(r"norm\.", "ln_pooled." if any(name.startswith("encoder.norm.") for name in tensors) else "ln_final.")]
    inner = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    outer = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    return {**renamed_weights(inner), **renamed_weights(outer, renames)}
