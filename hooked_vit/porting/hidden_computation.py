"""Refuse modules that compute more than their parts show: hooks, adapters, reparametrised weights, own methods."""

import math
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

import torch
from timm import layers
from timm.models.gemma4_vit import Gemma4ClippableLinear
from timm.models.vision_transformer import (
    Block,
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hooked_vit.porting.parts import ACTIVATION_NAMES, MLP_KINDS, NORM_KINDS, qualified, refuse

# in evaluation mode
_INACTIVE = (nn.Identity, nn.Dropout, layers.DropPath, layers.PatchDropout, layers.PatchDropoutWithIndices)
_PARTS = {
    nn.Linear, nn.Conv2d, nn.GELU, nn.Sequential, nn.ModuleList, layers.PatchEmbed, layers.HybridEmbed,
    layers.Attention, layers.DiffAttention, layers.AttentionPoolLatent, layers.LayerScale, Block, ResPostBlock,
    ParallelScalingBlock, DiffParallelScalingBlock, ParallelThingsBlock, *_INACTIVE, *NORM_KINDS, *ACTIVATION_NAMES,
    *MLP_KINDS,
}  # fmt: skip
_LINEAR = re.compile(
    r"(encoder\.)?blocks\.\d+\.((attns|ffns)\.\d+\.)?"
    r"(attn\.(qkv|proj|q_proj|k_proj|v_proj|gate)|mlp\.(fc\w+|w[012])|(in|out|attn_out|mlp_out)_proj)"
)
MERGE = (
    "merge or remove it first (adapters: `model.merge_and_unload()`; parametrisations: "
    "`torch.nn.utils.parametrize.remove_parametrizations`; pruning: `torch.nn.utils.prune.remove`; quantised layers: "
    "load the model without quantisation)"
)
_CAPTURING = "transformers.utils.output_capturing"  # its hooks, left behind by output_hidden_states, change nothing


def refuse_changed_parts(module: nn.Module, refuse: Callable[[str], NoReturn]) -> None:
    """Refuse a module, of any library, whose parts were changed from outside, which a port would silently lose.

    No submodule may have hooks, a `forward` of its own, a reparametrised weight or a quantised one.

    Args:
        module: The module.
        refuse: Raises the error for what is not covered.
    """
    for name, part in module.named_modules():
        where = f"'{name}'" if name else "the model"
        if parametrize.is_parametrized(part) or any(key.endswith(("_orig", "_g")) for key in part._parameters):
            refuse(f"a reparametrised weight (weight norm, pruning or the like) in {where}: {MERGE}")
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        if any(getattr(hook, "__module__", "") != _CAPTURING for hook in hooks):
            refuse(f"a forward hook on {where}, which may change what the model computes: remove it first")
        if "forward" in vars(part):
            refuse(f"a `forward` that was set on the instance {where}")
        for key, tensor in part._parameters.items():
            if tensor is not None and (type(tensor.data) is not Tensor or not tensor.is_floating_point()):
                kind = f"{type(tensor.data).__name__} of {tensor.dtype}"
                refuse(f"a weight '{key}' in {where} that is a {kind}, not a tensor of floats: {MERGE}")


def refuse_hidden_computation(module: nn.Module) -> None:
    """Raise ValueError if a timm module computes what its parts do not show, which a port would silently lose.

    Besides `refuse_changed_parts`, what holds a matrix must be a plain linear layer.
    """
    refuse_changed_parts(module, refuse)
    for name, part in module.named_modules():
        where = f"'{name}'" if name else "the model"
        if _LINEAR.fullmatch(name) and type(part) not in (nn.Linear, nn.Conv2d, Gemma4ClippableLinear):
            refuse(f"a {qualified(part)} as {where}: {MERGE}")
        if not _scale_is_usual(part):
            refuse(f"the scale {part.scale} of the attention scores in {where}, which is not 1 / sqrt(d_head)")


def _scale_is_usual(part: Any) -> bool:
    scale, n_heads, projection = (getattr(part, name, None) for name in ("scale", "num_heads", "proj"))
    is_parallel = hasattr(part, "in_proj") and hasattr(part, "head_dim")
    if scale is None or n_heads is None or not (isinstance(projection, nn.Linear) or is_parallel):
        return True  # no attention
    d_head = getattr(part, "head_dim", None) or projection.in_features // n_heads  # pyright: ignore[reportOptionalMemberAccess]
    return math.isclose(scale, d_head**-0.5, rel_tol=1e-6)


def refuse_replaced_methods(module: nn.Module, base: type[nn.Module], methods: Sequence[str]) -> None:
    """Raise ValueError if a subclass of timm's class has methods of its own in the place of some of timm's."""
    for method in methods:
        if getattr(type(module), method) is not getattr(base, method):
            refuse(f"{type(module).__name__}.{method}, which replaces {base.__name__}'s own")


def refuse_changed_buffer(found: Tensor, expected: Tensor, name: str) -> None:
    """Raise ValueError unless a buffer that timm computes from the architecture is as it computes it."""
    if found.is_meta:
        return
    if found.shape != expected.shape or not torch.allclose(found, expected.to(found), rtol=1e-5, atol=1e-5):
        refuse(f"a changed buffer '{name}': a HookedViT computes it from the architecture")


def refuse_unknown_parts(
    module: nn.Module, base: type[nn.Module] = VisionTransformer, more_parts: Collection[type] = ()
) -> None:
    """Raise ValueError unless every submodule is of exactly one of the types that a HookedViT has a part for.

    A stem is used as it is, whatever its parts.

    Args:
        module: The module.
        base: Its class, or the one that it extends.
        more_parts: The types that only this family has.
    """
    for name, part in module.named_modules():
        if name.startswith("patch_embed.backbone"):
            continue
        known = type(part) in _PARTS or type(part) in more_parts
        if not known and not (part is module and isinstance(part, base)):
            place = "the place of a dropout, " if "drop" in name.split(".")[-1] else ""
            refuse(f"a {qualified(part)} as {place}'{name}'")
