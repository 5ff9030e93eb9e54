"""The trained weights in other libraries' modules, and photographs as input, for the tests in `real`."""

from pathlib import Path

import timm
import torch
from real_dinov2 import ARCHITECTURE, photographs
from torch import Tensor, nn

from hooked_vit import HookedViT


def timm_module(weights: Path, image_size: int | tuple[int, int]) -> nn.Module:
    """timm's module, which loads the file and resamples the positions itself; plain attention."""
    timm.layers.set_fused_attn(False)
    try:
        overlay = {"file": str(weights)}
        return timm.create_model(
            ARCHITECTURE, pretrained=True, img_size=image_size, pretrained_cfg_overlay=overlay
        ).eval()
    finally:
        timm.layers.set_fused_attn(True)


def pictures(model: HookedViT, *names: str) -> Tensor:
    """Some photographs as the model's input."""
    found = photographs()
    return model.preprocess([found[name] for name in names])


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    with torch.no_grad():
        return float((found - expected).abs().max() / expected.abs().max())
