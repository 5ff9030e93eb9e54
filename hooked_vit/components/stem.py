"""The convolutional network in front of the patch projection: timm's module as it is, always in evaluation mode."""

import copy

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from hooked_vit.config import StemConfig


def without_weights(module: nn.Module) -> nn.Module:
    """A copy of a module whose parameters and persistent buffers are on the meta device: its architecture alone.

    >>> without_weights(nn.Conv2d(3, 4, 2)).weight.device
    device(type='meta')
    """
    memo: dict[int, object] = {}
    for tensor in module.state_dict(keep_vars=True).values():
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(module, memo)


class Stem(nn.Module):
    """From the pixels to a feature map, by timm's own module; it stays in evaluation mode.

    Its weights keep timm's names. It is computed as a whole: its one hook point is its output, the model's `hook_stem`.
    """

    def __init__(self, cfg: StemConfig):
        super().__init__()
        self.backbone = copy.deepcopy(cfg.template)
        device = torch.empty(0).device
        if device.type != "meta":
            self.backbone.to_empty(device=device)
            for module in self.backbone.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
        self.eval()

    def train(self, mode: bool = True) -> "Stem":
        """Leaves the stem in evaluation mode: in training its batch norms would use, and change, running means."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature row column"]:
        """The feature map; of a module that returns several, the last."""
        features = self.backbone(images)
        return features[-1] if isinstance(features, list | tuple) else features

    def statistics(self, prefix: str) -> dict[str, Shaped[Tensor, "..."]]:
        """What batch norms have seen: no parameters, but weights without which the stem cannot run."""
        stored = self.state_dict(prefix=prefix, keep_vars=True)
        return {name: tensor for name, tensor in stored.items() if not isinstance(tensor, nn.Parameter)}
