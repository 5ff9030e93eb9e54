"""What a port is before it becomes a model: the config, the weights, and the facts that come with the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hooked_vit.config import HookedViTConfig


@dataclass(frozen=True)
class Ported:
    """Everything that a HookedViT needs from a module.

    Attributes:
        cfg: The architecture.
        weights: The parameters under HookedViT's names.
        class_names: One name per class; `None` if they are unknown.
        data_config: The preprocessing for the weights, in timm's terms; `None` if it is unknown.
        fused_attention: Whether the module's attention is fused.
    """

    cfg: HookedViTConfig
    weights: Mapping[str, Tensor]
    class_names: Sequence[str] | None
    data_config: dict[str, Any] | None
    fused_attention: bool
