"""From a timm module to a config and weights; one file per timm family."""

from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from hooked_vit.config import HookedViTConfig
from hooked_vit.porting import naflex, vision_transformer

__all__ = ["read_config", "read_weights"]


def read_config(module: nn.Module) -> HookedViTConfig:
    """The config of a timm module, read from its parts and never from its name."""
    if isinstance(module, NaFlexVit):
        return naflex.read_naflex_config(module)
    return vision_transformer.read_config(module)


def read_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a timm module under HookedViT's names; the tensors are the module's own."""
    if isinstance(module, NaFlexVit):
        return naflex.read_naflex_weights(module)
    return vision_transformer.read_weights(module)
