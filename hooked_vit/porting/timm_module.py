"""A timm module: its architecture, weights, class names and preprocessing."""

import warnings
from collections.abc import Sequence
from functools import partial

from timm.data import resolve_data_config
from torch import nn

from hooked_vit.class_names import imagenet_class_names
from hooked_vit.porting.families import encoder_of, left_out, original_output, read_config, read_weights
from hooked_vit.porting.ported import Ported
from hooked_vit.porting.reference import Reference


def read(module: nn.Module, class_names: Sequence[str] | None = None) -> Ported:
    """What a HookedViT needs from a timm module; the weights are the module's own.

    Raises:
        ValueError: If a part of the module is not covered.
    """
    cfg, weights = read_config(module), read_weights(module)
    without = left_out(module)
    if without is not None:
        warnings.warn(f"ported without {without}: the model returns the mean of its patches instead", stacklevel=4)
    if class_names is None:
        class_names = _known_class_names(module, cfg.n_classes)
    data_config = resolve_data_config(
        {"input_size": (cfg.n_channels, *cfg.image_size)}, pretrained_cfg=getattr(module, "pretrained_cfg", {}) or {}
    )
    blocks = encoder_of(module).get_submodule("blocks")
    fused_attention = any(getattr(part, "fused_attn", False) for part in blocks.modules())
    return Ported(cfg, weights, class_names, data_config, fused_attention)


def _known_class_names(module: nn.Module, n_classes: int) -> Sequence[str] | None:
    """timm's names for the pretrained head, if this head has the same number of classes."""
    pretrained = getattr(module, "pretrained_cfg", None) or {}
    if pretrained.get("label_names"):
        names = pretrained["label_names"]
        return names if len(names) == n_classes else None
    return imagenet_class_names(n_classes) if pretrained.get("num_classes") == n_classes else None


def reference(module: nn.Module) -> Reference:
    """What `verify` compares the port of a timm module with."""
    blocks = encoder_of(module).get_submodule("blocks").children()
    return Reference(partial(original_output, module), list(blocks), "timm's")
