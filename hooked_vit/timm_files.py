"""A weights file in the place of an architecture's published weights, converted by timm's own function for it."""

import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import timm
from timm.models import _builder
from torch import Tensor, nn

from hooked_vit.weight_files import fit_state_dict

_LOADER = threading.Lock()
_HEADS = {"head.weight": 0, "visual.head.proj.weight": 0, "visual.trunk.head.weight": 0, "visual.head.weight": 0,
          "visual.proj": 1, "proj": 1}  # fmt: skip
"""A key of the last layer -> the axis of its classes, or of the dimensions that CLIP's image features have."""

Filter = Callable[[dict[str, Any], nn.Module], dict[str, Tensor]]


def n_classes_in(state_dict: Mapping[str, Tensor]) -> int | None:
    """How many classes the head in a file has: 0 for blocks without a head, `None` if the file shows neither.

    >>> import torch
    >>> n_classes_in({"visual.proj": torch.zeros(24, 10)}), n_classes_in({"blocks.0.norm1.weight": torch.zeros(3)})
    (10, 0)
    """
    for key, axis in _HEADS.items():
        if key in state_dict:
            return state_dict[key].shape[axis]
    has_blocks = any(f".{key}".find(".blocks.") >= 0 or ".resblocks." in key for key in state_dict)
    has_head = any(key.startswith("head") for key in state_dict)
    return 0 if has_blocks and not has_head else None


def timm_module_from(name: str, state_dict: Mapping[str, Tensor], path: Path, **timm_kwargs: Any) -> nn.Module:
    """The timm model `name` with the weights of a file.

    The file goes through the function with which timm converts published weights of this architecture
    (`checkpoint_filter_fn`): official layouts are renamed, positions and patches resampled to the model's size. A
    warning says if they were.

    Raises:
        ValueError: If the weights do not fit, whatever timm does with them.
    """
    module, convert = _with_filter(name, **timm_kwargs)
    try:
        converted = dict(state_dict) if convert is None else convert(dict(state_dict), module)
    except Exception as error:  # whatever another layout makes it run into: the keys say more
        fit_state_dict(state_dict, module, path)
        raise ValueError(f"'{path}' cannot be converted by timm for '{name}': {error}") from error
    if "pos_embed" in state_dict and _misfits(converted, module):
        # timm takes the positions' grid for a square: what it makes of another one says nothing to the reader
        converted["pos_embed"] = state_dict["pos_embed"]
    module.load_state_dict(fit_state_dict(converted, module, path))
    _warn_of_resampling(state_dict, converted, path)
    return module


def _misfits(converted: Mapping[str, Tensor], module: nn.Module) -> bool:
    needed = getattr(module, "pos_embed", None)
    return needed is not None and "pos_embed" in converted and converted["pos_embed"].shape != needed.shape


def _with_filter(name: str, **timm_kwargs: Any) -> tuple[nn.Module, Filter | None]:
    """A model without its published weights, and what timm would pass them through.

    An architecture hands its function to timm's loader alone, with settings of its own (FlexiViT resamples bilinearly,
    DeiT III renames LayerScale), so it is taken where the loader gets it, in place of loading anything.
    """
    filters: list[Filter | None] = []

    def keep(model: nn.Module, *args: Any, filter_fn: Filter | None = None, **kwargs: Any) -> None:
        filters.append(filter_fn)

    with _LOADER, patch.object(_builder, "load_pretrained", keep):
        module = timm.create_model(name, pretrained=True, **timm_kwargs)
    return module, filters[0] if filters else None


def _warn_of_resampling(state_dict: Mapping[str, Tensor], converted: Mapping[str, Tensor], path: Path) -> None:
    positions = [tensor for name, tensor in state_dict.items() if "pos" in name and tensor.ndim > 1]
    for name, tensor in converted.items():
        is_positions = name.endswith(("pos_embed", "relative_position_bias_table"))
        # a CLS token's row may be added or taken away without any resampling
        rows = {stored.numel() // stored.shape[-1] for stored in positions if stored.shape[-1] == tensor.shape[-1]}
        if is_positions and rows and not rows & {tensor.numel() // tensor.shape[-1] + extra for extra in range(3)}:
            size = " or ".join(str(count) for count in sorted(rows))
            new = tensor.numel() // tensor.shape[-1]
            warnings.warn(
                f"the positions in '{path}' ({name}: {size} rows) are resampled to {new}, for the model's image size",
                stacklevel=2,
            )
            break
    kernels = [tensor for tensor in state_dict.values() if tensor.ndim == 4]
    patches = converted.get("patch_embed.proj.weight")
    if patches is not None and kernels and all(stored.shape[-2:] != patches.shape[-2:] for stored in kernels):
        stored = tuple(kernels[0].shape[-2:])
        warnings.warn(
            f"the patch projection in '{path}', for patches of {stored} pixels, is resampled to "
            f"{tuple(patches.shape[-2:])}",
            stacklevel=2,
        )
