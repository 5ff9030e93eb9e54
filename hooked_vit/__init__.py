"""hooked_vit: timm Vision Transformers with a TransformerLens-style name for every activation and weight."""

from hooked_vit.cache import ViTActivationCache
from hooked_vit.config import HookedViTConfig, NormConfig
from hooked_vit.hook_point import HookPoint
from hooked_vit.memory import keep_freed_memory
from hooked_vit.model import HookedViT
from hooked_vit.token_layout import KeptTokens, TokenLayout

__all__ = [
    "HookPoint",
    "HookedViT",
    "HookedViTConfig",
    "KeptTokens",
    "NormConfig",
    "TokenLayout",
    "ViTActivationCache",
    "keep_freed_memory",
]
