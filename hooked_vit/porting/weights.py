"""The tensors of a timm module under HookedViT's names."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

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
    (r"rope\.", "rotary.rope."),
    (r"blocks\.(\d+)\.norm([12])\.", r"blocks.\1.ln\2."),
    (r"blocks\.(\d+)\.ls([12])\.gamma$", r"blocks.\1.ls\2"),
    (r"blocks\.(\d+)\.gamma_([12])$", r"blocks.\1.ls\2"),
    (r"blocks\.(\d+)\.attn\.(qkv|q_norm|k_norm|gate)\.", r"blocks.\1.attn.\2."),
    (r"blocks\.(\d+)\.attn\.([qv])_bias$", r"blocks.\1.attn.qkv.\2_bias"),
    (r"blocks\.(\d+)\.attn\.norm\.", r"blocks.\1.attn.ln."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"blocks.\1.attn.out."),
    (r"blocks\.(\d+)\.mlp\.(?:fc1_g|w0)\.", r"blocks.\1.mlp.gate."),
    (r"blocks\.(\d+)\.mlp\.(?:fc1|fc1_x|w1)\.", r"blocks.\1.mlp.inp."),
    (r"blocks\.(\d+)\.mlp\.norm\.", r"blocks.\1.mlp.ln."),
    (r"blocks\.(\d+)\.mlp\.input_norm\.", r"blocks.\1.mlp.ln_in."),
    (r"blocks\.(\d+)\.mlp\.(?:fc2|w2)\.", r"blocks.\1.mlp.out."),
]
_WITH_LEADING_AXIS = {"cls_token", "dist_token", "reg_token", "pos_embed", "attn_pool.latent"}


def renamed_weights(tensors: Mapping[str, Tensor], more_renames: Sequence[tuple[str, str]] = ()) -> dict[str, Tensor]:
    """Tensors by timm's names under HookedViT's names; they are the same tensors.

    Args:
        tensors: A state dict of a timm module, with its parameters themselves.
        more_renames: Pairs of a pattern for the start of timm's name and its replacement, tried first.

    Raises:
        ValueError: If a tensor has no name in a HookedViT.
    """
    stored = {name: tensor[0] if name in _WITH_LEADING_AXIS else tensor for name, tensor in tensors.items()}
    weights, unknown = renamed_by(stored, [*more_renames, *_RENAMES])
    if unknown:
        raise ValueError(f"{len(unknown)} tensors of the module have no name in a HookedViT: {', '.join(unknown)}")
    return weights


def renamed_by(
    tensors: Mapping[str, Tensor], renames: Sequence[tuple[str, str]]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under new names, and the names that no pattern renames, or that would be given twice.

    Args:
        tensors: A state dict.
        renames: Pairs of a pattern for the start of a name and its replacement; the first that fits counts.

    >>> renamed_by({"norm.bias": torch.zeros(2), "mask": torch.zeros(2)}, [(r"norm\\.", "ln.")])
    ({'ln.bias': tensor([0., 0.])}, ['mask'])
    """
    weights: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        renamed = _rename(name, renames)
        if renamed is None or renamed in weights:
            unknown.append(name)
        else:
            weights[renamed] = tensor
    return weights, unknown


def _rename(name: str, renames: Sequence[tuple[str, str]]) -> str | None:
    for pattern, replacement in renames:
        renamed, n_matches = re.subn(rf"^{pattern}", replacement, name)
        if n_matches:
            return renamed
    return None


def join_projections(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict whose separate matrices of queries, keys and values (`q_proj`, `k_proj`, `v_proj`) are one (`qkv`).

    Biases become one too, or `q_bias` and `v_bias` if keys have none.

    >>> weights = {f"attn.{part}_proj.weight": torch.full((2, 3), number) for number, part in enumerate("qkv")}
    >>> join_projections(weights)["attn.qkv.weight"][:, 0].tolist()
    [0, 0, 1, 1, 2, 2]
    """
    joined = dict(tensors)
    for name in [name for name in tensors if name.endswith("attn.q_proj.weight")]:
        prefix = name.removesuffix("q_proj.weight")
        weights = [joined.pop(f"{prefix}{part}_proj.weight") for part in "qkv"]
        q, k, v = (joined.pop(f"{prefix}{part}_proj.bias", None) for part in "qkv")
        joined[f"{prefix}qkv.weight"] = _cat(weights)
        if q is not None and k is not None and v is not None:
            joined[f"{prefix}qkv.bias"] = _cat([q, k, v])
        elif q is not None and v is not None:
            joined[f"{prefix}q_bias"], joined[f"{prefix}v_bias"] = q, v
    return joined


def _cat(tensors: Sequence[Tensor]) -> nn.Parameter:
    requires_grad = any(tensor.requires_grad for tensor in tensors)
    return nn.Parameter(torch.cat([tensor.detach() for tensor in tensors]), requires_grad=requires_grad)
