"""timm models with weights drawn fast, and plain attention on both sides of a comparison."""

from collections.abc import Sequence
from typing import Any

import pytest
import timm
import torch
from torch import nn

from hooked_vit import HookedViT


def some_of(names: Sequence[str], step: int = 8) -> list[Any]:
    """Parameters of a test: each `step`-th name is tested every time, the others by `make family`."""
    return [name if i % step == 0 else pytest.param(name, marks=pytest.mark.family) for i, name in enumerate(names)]


def build(name: str, **arguments: object) -> nn.Module:
    """A timm model with weights drawn fast, none of them trivially zero or one."""
    with torch.device("meta"):
        module = timm.create_model(name, pretrained=False, **arguments)
    module = module.to_empty(device="cpu").eval()
    for part in module.modules():
        if hasattr(part, "init_non_persistent_buffers"):
            part.init_non_persistent_buffers()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.02, generator=generator)
            else:
                parameter.normal_(0 if "bias" in key else 1, 0.1, generator=generator)
        for key, buffer in module.named_buffers():
            if "running" in key:
                buffer.fill_(1 if key.endswith("running_var") else 0)
    return module


def switch_fused_off(model: HookedViT, module: nn.Module) -> None:
    """Plain attention on both sides."""
    model.fused_attention = False
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
