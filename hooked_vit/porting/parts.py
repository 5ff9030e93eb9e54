"""Reading norms, activation functions and MLPs of timm modules, and refusing those that are not covered."""

from typing import Any, NoReturn

import torch
from timm import layers
from timm.models.vitamin import GeGluMlp
from torch import nn

from hooked_vit.config import MlpKind, NormConfig


def refuse(feature: str) -> NoReturn:
    """Raise the error for a module that has a part HookedViT does not cover."""
    raise ValueError(
        f"not covered: {feature}. HookedViT covers timm's VisionTransformer and VisionTransformerDistilled with a "
        "convolutional patch embedding or stem, Block or ResPostBlock, and the poolings cls, avg, max, avgmax and map"
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
