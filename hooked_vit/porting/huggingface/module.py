"""A Hugging Face model: its encoder, its head, its class names."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import transformers
from torch import nn

from hooked_vit.config import HookedViTConfig
from hooked_vit.porting.hidden_computation import MERGE, refuse_changed_parts
from hooked_vit.porting.huggingface import beit, clip, dinov2, dinov3, vit
from hooked_vit.porting.huggingface.heads import Head, read_head
from hooked_vit.porting.huggingface.parts import Tower, refuse
from hooked_vit.porting.parts import qualified
from hooked_vit.porting.ported import Ported
from hooked_vit.porting.reference import Reference

_MADE_FOR = "5.24"
_FAMILIES: tuple[ModuleType, ...] = (vit, beit, dinov2, dinov3, clip)
_PLAIN = {
    nn.Linear, nn.Conv2d, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention,
    nn.modules.linear.NonDynamicallyQuantizableLinear, nn.ModuleList, nn.Dropout, nn.Identity, nn.SiLU, nn.ReLU,
    nn.Sigmoid,
}  # fmt: skip


@dataclass(frozen=True)
class _Reading:
    tower: Tower
    head: Head
    encoder: nn.Module


def read(module: nn.Module, class_names: Sequence[str] | None = None) -> Ported:
    """What a HookedViT needs from a Hugging Face model; the weights are the module's own where they can be.

    The model may be an encoder, its classifier, CLIP with its projection, or a larger model that holds one of the
    encoders. Its preprocessing is not known to the module.

    Raises:
        ValueError: If it holds no encoder that is covered or several, or a part of it is not covered; or if its
            `id2label` has another length than its head and no `class_names` are given.
    """
    model: Any = module
    reading = _read(model)
    weight = next(reading.encoder.parameters())
    fields = {"final_norm": reading.tower.final_norm, **reading.tower.fields, **reading.head.fields}
    cfg = HookedViTConfig(
        n_layers=len(reading.tower.blocks),
        d_model=reading.tower.weights["blocks.0.ln1.weight"].shape[0],
        **fields,
        device=weight.device,
        dtype=weight.dtype,
    )
    weights = {**reading.tower.weights, **reading.head.weights}
    if cfg.final_norm is None:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("ln_final.")}
    if class_names is None and reading.head.classifier:
        class_names = _class_names(model.config, cfg.n_classes)
    fused = getattr(reading.encoder.config, "_attn_implementation", None) != "eager"
    return Ported(cfg, weights, class_names, None, fused)


def reference(module: nn.Module) -> Reference:
    """What `verify` compares the port of a Hugging Face model with."""
    reading = _read(module)
    return Reference(reading.head.run, reading.tower.blocks, "transformers'")


def _read(model: Any) -> _Reading:
    encoder, family = _encoder(model)
    _refuse_unknown_parts(encoder)
    for head in _heads(model):
        refuse_changed_parts(head, refuse)
    try:
        tower = family.read_tower(encoder)
        return _Reading(tower, read_head(model, encoder, tower, family.features), encoder)
    except AttributeError as error:
        raise ValueError(
            f"not covered: a {qualified(encoder)} of other parts than in transformers {_MADE_FOR}, whose modules "
            f"HookedViT reads; {transformers.__version__} is installed ({error})"
        ) from error


def _encoder(model: nn.Module) -> tuple[Any, ModuleType]:
    """The encoder in a model, and its family."""
    found = {
        name: (part, family)
        for name, part in model.named_modules()
        for family in _FAMILIES
        if type(part) in family.TOWERS
    }
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        names = " or ".join(f"`module.{name}`" for name in found)
        refuse(f"a {qualified(model)} with {len(found)} encoders", f"Pass one of them: {names}.")
    has_text = any("Text" in type(part).__name__ or "input_ids" in vars(part) for part in model.modules())
    reads = getattr(model, "main_input_name", "pixel_values")
    if has_text or reads != "pixel_values":
        refuse(f"{qualified(model)}, which reads text ({reads}) and holds no image encoder that is covered")
    return refuse(f"a {qualified(model)}")


def _heads(model: Any) -> list[nn.Module]:
    """The layers of the model, outside its encoder, that its logits pass."""
    names = ("classifier", "cls_classifier", "distillation_classifier", "visual_projection")
    return [getattr(model, name) for name in names if isinstance(getattr(model, name, None), nn.Module)]


def _refuse_unknown_parts(encoder: nn.Module) -> None:
    refuse_changed_parts(encoder, refuse)
    for name, part in encoder.named_modules():
        if name.partition(".")[0] == "pooler":
            continue  # read by pre-training only
        package = type(part).__module__
        if type(part) not in _PLAIN and not package.startswith(("transformers.models.", "transformers.activations")):
            refuse(f"a {qualified(part)} as '{name}'", f"{MERGE[0].upper()}{MERGE[1:]}.")


def _class_names(config: Any, n_classes: int) -> Sequence[str] | None:
    """The names in a config's `id2label`; `None` where they are transformers' placeholders."""
    labels = dict(getattr(config, "id2label", None) or {})
    labels = {int(index): str(name) for index, name in labels.items()}
    if not n_classes or all(name == f"LABEL_{index}" for index, name in labels.items()):
        return None
    if set(labels) != set(range(n_classes)):
        raise ValueError(
            f"the model's id2label names {len(labels)} classes (indices {min(labels)} to {max(labels)}), its head has "
            f"{n_classes}: pass class_names=[...], one for each class, or correct `module.config.id2label`"
        )
    return [labels[index] for index in range(n_classes)]
