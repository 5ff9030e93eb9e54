"""timm's vision tower of Gemma 4, alone or under a classifier: config and weights, from the module.

The pool of the language model's tower averages several patches into one token and scales them. It is left out: a tower
that has it enters as the same tower with all of its patches averaged.
"""

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.gemma4_vit import (
    Gemma4Attention,
    Gemma4Block,
    Gemma4ClippableLinear,
    Gemma4GatedMlp,
    Gemma4PatchEmbed,
    Gemma4RotaryEmbedding2D,
    Gemma4VisionPooler,
    Gemma4VitClassifier,
    Gemma4VitEncoder,
)
from torch import Tensor

from hooked_vit.components.rotary import made_rope
from hooked_vit.config import HookedViTConfig, RotaryConfig
from hooked_vit.embedding_config import GridPositions, LinearPatches
from hooked_vit.porting.embedding_and_head import read_linear_head, refuse_other_heads
from hooked_vit.porting.hidden_computation import (
    refuse_changed_buffer,
    refuse_hidden_computation,
    refuse_replaced_methods,
    refuse_unknown_parts,
)
from hooked_vit.porting.parts import read_activation, read_blocks, read_norm, refuse
from hooked_vit.porting.weights import join_projections, renamed_weights

CLASSES = (Gemma4VitEncoder, Gemma4VitClassifier)
_PARTS = (
    *CLASSES, Gemma4Attention, Gemma4Block, Gemma4ClippableLinear, Gemma4GatedMlp, Gemma4PatchEmbed,
    Gemma4RotaryEmbedding2D, Gemma4VisionPooler,
)  # fmt: skip
_BOUNDS = ("input_min", "input_max", "output_min", "output_max")
_RENAMES = [
    (r"patch_embed\.input_proj\.", "embed.patch."),
    (r"blocks\.(\d+)\.norm1\.", r"blocks.\1.ln1."),
    (r"blocks\.(\d+)\.norm2\.", r"blocks.\1.ln1_post."),
    (r"blocks\.(\d+)\.norm3\.", r"blocks.\1.ln2."),
    (r"blocks\.(\d+)\.norm4\.", r"blocks.\1.ln2_post."),
    (r"blocks\.(\d+)\.attn\.o_proj\.", r"blocks.\1.attn.out."),
    (r"blocks\.(\d+)\.mlp\.gate_proj\.", r"blocks.\1.mlp.gate."),
    (r"blocks\.(\d+)\.mlp\.up_proj\.", r"blocks.\1.mlp.inp."),
    (r"blocks\.(\d+)\.mlp\.down_proj\.", r"blocks.\1.mlp.out."),
]


def encoder_of(module: Any) -> Any:
    """The tower, without its classifier."""
    return module.encoder if isinstance(module, Gemma4VitClassifier) else module


def left_out(module: Any) -> str | None:
    """The part of a module that its port does not have, as a phrase; `None` if it has all."""
    if encoder_of(module).global_pool != "soft":
        return None
    behind = " and the classifier behind it" if module is not encoder_of(module) else ""
    return f"the pool 'soft'{behind}, which averages several patches into one token and scales it"


def original_output(module: Any, images: Tensor | Mapping[str, Any]) -> Tensor:
    """What a port's logits must equal: the module's output, or the mean of its patches if it has the soft pool."""
    if left_out(module) is None:
        return module(images)
    features = encoder_of(module).forward_features(images)
    if isinstance(images, Tensor):
        return features.mean(dim=1)
    valid = images["patch_valid"]
    return torch.where(valid[..., None], features, 0).sum(dim=1) / valid.sum(dim=1, keepdim=True)


def read_config(module: Any) -> HookedViTConfig:
    """The config of a tower, or of a classifier on one.

    Raises:
        ValueError: If a part is not covered; the message names it.
    """
    base = next(cls for cls in CLASSES if isinstance(module, cls))
    refuse_replaced_methods(module, base, ("forward", "forward_features", "forward_head"))
    refuse_hidden_computation(module)
    encoder = encoder_of(module)
    embed, weight = encoder.patch_embed, next(module.parameters())
    pretrained = getattr(module, "pretrained_cfg", None) or {}
    height, width = tuple(pretrained.get("input_size", (3, 768, 768)))[-2:]  # timm keeps no size of its own
    cfg = HookedViTConfig(
        d_model=encoder.embed_dim,
        **read_blocks(encoder.blocks, _read_block),
        **_read_head(module, encoder),
        image_size=(height, width),
        patch_size=embed.patch_size,
        n_channels=encoder.in_chans,
        dynamic_image_size=True,
        has_cls=False,
        positions="axes",
        grid_positions=GridPositions((embed.position_embedding_size,) * 2, "lookup"),
        linear_patches=LinearPatches(channels_last=False, given_channels_last=True, centred=True),
        patch_bias=False,
        rotary=RotaryConfig("gemma", encoder.rotary_emb.rope_theta),
        device=weight.device,
        dtype=weight.dtype,
    )
    for name, values in made_rope(cfg).named_buffers():
        refuse_changed_buffer(encoder.get_buffer(name), values, name)
    refuse_unknown_parts(module, base, _PARTS)
    return cfg


def _read_block(block: Any, where: str) -> dict[str, Any]:
    if type(block) is not Gemma4Block or type(block.attn) is not Gemma4Attention:
        refuse(f"a {type(block).__name__} with {type(block.attn).__name__} as {where}")
    for name, part in block.named_modules():
        if isinstance(part, Gemma4ClippableLinear) and part.use_clipped:
            _refuse_bounds(part, f"{name} of {where}")
    attn, norms = block.attn, [read_norm(getattr(block, f"norm{n}"), f"norm{n} of {where}") for n in (1, 2, 3, 4)]
    if norms[0] is None or any(norm != norms[0] for norm in norms):
        refuse(f"norms of different kinds, or none, in {where}")
    return {
        "n_heads": attn.num_heads,
        "d_head": attn.head_dim,
        "n_key_value_heads": attn.num_kv_heads,
        "qkv_bias": False,
        "separate_qkv": True,
        "attn_out_bias": False,
        "attn_scale": 1.0,
        "qk_norm": read_norm(attn.q_norm, f"q_norm of {where}"),
        "v_norm": read_norm(attn.v_norm, f"v_norm of {where}"),
        "block_norm": norms[0],
        "sandwich_norm": True,
        "d_mlp": block.mlp.down_proj.linear.in_features,
        "act_fn": read_activation(block.mlp.act, where),
        "mlp_kind": "glu_split",
        "mlp_bias": (False, False),
    }


def _refuse_bounds(linear: Any, where: str) -> None:
    bounds = [getattr(linear, name) for name in _BOUNDS]
    if not any(bound.is_meta for bound in bounds) and any(bound.isfinite() for bound in bounds):
        refuse(
            f"inputs and outputs clipped to finite bounds in {where}: what heads and neurons write does not add up to "
            "what the sub-layer adds to the stream (`module.set_clamp_enabled(False)` makes another model without them)"
        )


def _read_head(module: Any, encoder: Any) -> dict[str, Any]:
    whole = left_out(module) is None
    if whole and module.global_pool != "avg":
        refuse(f"global_pool={module.global_pool!r}, features that are not pooled: create it with global_pool='avg'")
    if not whole or module is encoder:
        return {"n_classes": 0, "final_norm": None, "pool": "avg"}
    refuse_other_heads(module.head)
    norm = read_norm(module.norm, "the norm of the classifier")
    return {**read_linear_head(module.head), "final_norm": norm, "norm_after_pool": norm is not None, "pool": "avg"}


def read_weights(module: Any) -> dict[str, Tensor]:
    """The weights of a tower under HookedViT's names; the module's own tensors, except for joined projections.

    Raises:
        ValueError: If a tensor of the module has no name in a HookedViT.
    """
    tensors, standardised = {}, ("std_bias", "std_scale")
    whole = left_out(module) is None
    for name, tensor in module.state_dict(keep_vars=True).items():
        inner, last = name.removeprefix("encoder."), name.rpartition(".")[2]
        # bounds are infinite, and the soft pool alone standardises
        if last not in (*_BOUNDS, *standardised) and (whole or not inner.startswith(("head.", "norm."))):
            tensors[inner.replace(".linear.", ".")] = tensor
    table = tensors.pop("patch_embed.position_embedding_table")
    weights = renamed_weights(join_projections(tensors), _RENAMES)
    return {**weights, "embed.pos_columns": table[0], "embed.pos_rows": table[1]}
