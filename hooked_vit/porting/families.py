"""The table of timm's families: which file reads a module's config and weights."""

from types import ModuleType
from typing import Any

from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

from hooked_vit.config import HookedViTConfig
from hooked_vit.porting import beit, eva, gemma4, naflex, relative_positions, vision_transformer, vlm_towers
from hooked_vit.porting.parts import refuse

READERS: dict[type[nn.Module], ModuleType] = {
    VisionTransformer: vision_transformer,
    Eva: eva,
    Beit: beit,
    NaFlexVit: naflex,
    **dict.fromkeys(vlm_towers.CLASSES, vlm_towers),
    **dict.fromkeys(gemma4.CLASSES, gemma4),
    VisionTransformerRelPos: relative_positions,
}
"""Class -> the file with its `read_config` and `read_weights`; a subclass is read as the class that it extends."""


_WHY_NOT = {
    "VisionTransformerSAM": "it attends within windows of the patch grid, padded at the edges, and its positions enter "
    "through the queries, so no single sequence of tokens with one attention pattern describes it",
}


def _reader(module: nn.Module) -> ModuleType:
    for cls in type(module).__mro__:
        if cls in READERS:
            return READERS[cls]
    reason = _WHY_NOT.get(type(module).__name__)
    refuse(f"the family {type(module).__name__}{f' ({reason})' if reason else ''}")


def read_config(module: nn.Module) -> HookedViTConfig:
    """The config of a timm module, read from its parts and never from its name.

    Raises:
        ValueError: If a part is not covered; the message names it.
    """
    return _reader(module).read_config(module)


def read_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a timm module under HookedViT's names; the tensors are the module's own where it stores them so.

    Raises:
        ValueError: If a tensor of the module has no name in a HookedViT.
    """
    return _reader(module).read_weights(module)


def encoder_of(module: nn.Module) -> nn.Module:
    """The part of a module that has the blocks: the module itself, or the tower that it wraps."""
    reader = _reader(module)
    return reader.encoder_of(module) if hasattr(reader, "encoder_of") else module


def original_output(module: nn.Module, images: Any) -> Tensor:
    """The output of a module that its port's logits must equal, without what the port leaves out."""
    reader = _reader(module)
    return reader.original_output(module, images) if hasattr(reader, "original_output") else module(images)


def left_out(module: nn.Module) -> str | None:
    """The part of a module that its port does not have, as a phrase; `None` if it has all."""
    reader = _reader(module)
    return reader.left_out(module) if hasattr(reader, "left_out") else None
