"""Reading the parts of blocks of timm modules, and refusing those that are not covered."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from timm import layers
from timm.models.vitamin import GeGluMlp
from torch import nn

from hooked_vit.config import MlpKind, NormConfig


def refuse(feature: str) -> NoReturn:
    """Raise the error for a module that has a part HookedViT does not cover."""
    raise ValueError(
        f"not covered: {feature}. HookedViT covers plain Vision Transformers out of the parts that it has: "
        "`hooked_vit.covered_models.covered_models()` lists them"
    )


_LAYER_NORMS = (nn.LayerNorm, layers.LayerNorm, layers.LayerNormFp32)
_RMS_NORMS = (nn.RMSNorm, layers.RmsNorm, layers.RmsNormFp32)
NORM_KINDS = (*_LAYER_NORMS, *_RMS_NORMS)
MLP_KINDS: dict[type, MlpKind] = {
    layers.Mlp: "plain", layers.GluMlp: "glu_packed", layers.SwiGLU: "glu_split", GeGluMlp: "glu_split",
}  # fmt: skip


def read_norm(norm: Any, where: str) -> NormConfig | None:
    """The config of a norm; `None` for an identity."""
    if isinstance(norm, nn.Identity):
        return None
    in_float32 = isinstance(norm, layers.LayerNormFp32 | layers.RmsNormFp32)
    if type(norm) in _LAYER_NORMS:
        kind, eps = "layer", norm.eps
    elif type(norm) in _RMS_NORMS:
        weight = norm.weight
        dtype = torch.float32 if weight is None else weight.dtype
        kind, eps = "rms", torch.finfo(dtype).eps if norm.eps is None else norm.eps
    else:
        refuse(f"a {type(norm).__name__} as {where}")
    has_bias = getattr(norm, "bias", None) is not None
    return NormConfig(kind, float(eps), norm.weight is not None, has_bias, in_float32)


ACTIVATION_NAMES: dict[type, str] = {
    layers.GELU: "gelu",
    layers.GELUTanh: "gelu_tanh",
    layers.QuickGELU: "quick_gelu",
    nn.SiLU: "silu",
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    layers.Sigmoid: "sigmoid",
}


def read_activation(act: Any, where: str) -> str:
    """The name of an activation function in `hooked_vit.components.mlp.ACTIVATIONS`."""
    if type(act) is nn.GELU:
        return "gelu_tanh" if act.approximate == "tanh" else "gelu"
    name = ACTIVATION_NAMES.get(type(act))
    return name if name is not None else refuse(f"the activation function {type(act).__name__} in {where}")


def read_mlp(mlp: Any, where: str) -> dict[str, Any]:
    """The config fields of an MLP."""
    kind = MLP_KINDS.get(type(mlp))
    if kind is None:
        refuse(f"a {type(mlp).__name__} as the MLP of {where}")
    if type(mlp) is GeGluMlp:
        first, last, inner, outer = mlp.w1, mlp.w2, nn.Identity(), mlp.norm
    else:
        first, last, inner, outer = (mlp.fc1_x if kind == "glu_split" else mlp.fc1), mlp.fc2, mlp.norm, nn.Identity()
    if not isinstance(first, nn.Linear):
        refuse(f"an MLP of {type(first).__name__} in {where}")
    return {
        "d_mlp": last.in_features,
        "act_fn": read_activation(mlp.act, where),
        "mlp_kind": kind,
        "gate_last": bool(getattr(mlp, "gate_last", False)),
        "mlp_bias": (first.bias is not None, last.bias is not None),
        "mlp_input_norm": read_norm(outer, f"the input norm of the MLP of {where}"),
        "mlp_inner_norm": read_norm(inner, f"the norm inside the MLP of {where}"),
    }


def read_gate(attn: Any, where: str) -> bool:
    """Whether an attention multiplies its mix of values by a gate."""
    gate = getattr(attn, "gate", None)
    if gate is None:
        return False
    if type(gate) is not nn.Linear or (gate.bias is None) == has_query_bias(attn):
        refuse(f"gated attention with a bias unlike that of the queries, or with no linear layer, in {where}")
    return True


def has_query_bias(attn: Any) -> bool:
    """Whether the queries of an attention have a bias, wherever timm keeps it."""
    query = getattr(attn, "q_proj", None)
    linear = attn.qkv if query is None else query
    return linear.bias is not None or getattr(attn, "q_bias", None) is not None


def read_blocks(blocks: Sequence[Any] | nn.Module, read_block: Callable[[Any, str], dict[str, Any]]) -> dict[str, Any]:
    """The config fields of all blocks, which must be alike except for the number of key and value heads.

    Raises:
        ValueError: If there is no block, or two differ.
    """
    per_block = [read_block(block, f"block {index}") for index, block in enumerate(blocks)]  # pyright: ignore[reportArgumentType]
    n_shared = [fields.pop("n_key_value_heads", None) for fields in per_block]
    shared = fields_of_all_blocks(per_block)
    grouped = {} if n_shared[0] is None else {"n_key_value_heads": tuple(n_shared)}
    return {"n_layers": len(per_block), **shared, **grouped}


def fields_of_all_blocks(
    per_block: Sequence[dict[str, Any]], refuse: Callable[[str], NoReturn] = refuse
) -> dict[str, Any]:
    """The config fields of each block, which must be the same in all of them.

    Args:
        per_block: The fields of each block.
        refuse: Raises the error.

    Raises:
        ValueError: If there is no block, or two differ.
    """
    if not per_block:
        refuse("a model without blocks")
    first = per_block[0]
    for index, fields in enumerate(per_block):
        differing = [name for name in {**first, **fields} if fields.get(name) != first.get(name)]
        if differing:
            refuse(f"blocks of different kinds (block {index} and block 0 differ in {', '.join(differing)})")
    return first


def read_block_norms(block: Any, where: str) -> NormConfig:
    """The config that the two norms of a block share."""
    norm = read_norm(block.norm1, f"norm1 of {where}")
    if norm is None or norm != read_norm(block.norm2, f"norm2 of {where}"):
        refuse(f"norm1 and norm2 of different kinds, or none, in {where}")
    return norm


def tiles(conv: nn.Conv2d) -> bool:
    """Whether the patches of a convolution tile the image: they neither overlap nor leave gaps, without padding."""
    padded = conv.padding not in ((0, 0), "valid")
    return conv.kernel_size == conv.stride and not padded and conv.groups == 1 and conv.dilation == (1, 1)


def qualified(part: object) -> str:
    """The full name of a part's class, for messages."""
    return f"{type(part).__module__}.{type(part).__qualname__}"
