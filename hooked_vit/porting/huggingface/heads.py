"""What a Hugging Face model reads from its encoder: classifiers, CLIP's projection, attention pooling."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.models.beit.modeling_beit import BeitForImageClassification
from transformers.models.clip import modeling_clip
from transformers.models.deit import modeling_deit
from transformers.models.dinov2.modeling_dinov2 import Dinov2ForImageClassification
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import (
    Dinov2WithRegistersForImageClassification,
)
from transformers.models.ijepa.modeling_ijepa import IJepaForImageClassification
from transformers.models.siglip.modeling_siglip import SiglipForImageClassification, SiglipModel
from transformers.models.siglip2.modeling_siglip2 import Siglip2ForImageClassification, Siglip2Model
from transformers.models.vit.modeling_vit import ViTForImageClassification

from hooked_vit.porting.huggingface import beit, clip
from hooked_vit.porting.huggingface.parts import Tower, refuse
from hooked_vit.porting.parts import qualified


@dataclass(frozen=True)
class Head:
    """How the logits are read.

    Attributes:
        fields: Fields of the config.
        weights: Weights under HookedViT's names.
        run: From the model and images to the logits or features, for `verify`.
        classifier: Whether the outputs are classes, which `id2label` names.
    """

    fields: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    run: Callable[[Tensor], Tensor]
    classifier: bool = False


_CLS = {"pool": "cls"}
_AVERAGE = {"pool": "avg"}
_CLASSIFIERS: dict[type, dict[str, Any]] = {
    ViTForImageClassification: _CLS,
    modeling_deit.DeiTForImageClassification: _CLS,
    IJepaForImageClassification: _AVERAGE,
    # the mean of the last stream itself: CLIP's final norm is for its CLS token only
    modeling_clip.CLIPForImageClassification: {**_AVERAGE, "final_norm": None},
    SiglipForImageClassification: _AVERAGE,
    Siglip2ForImageClassification: _AVERAGE,
}
_CLS_AND_MEAN = (Dinov2ForImageClassification, Dinov2WithRegistersForImageClassification)
_PROJECTIONS = (modeling_clip.CLIPModel, modeling_clip.CLIPVisionModelWithProjection)

MODELS = (
    *_CLASSIFIERS,
    modeling_deit.DeiTForImageClassificationWithTeacher,
    *_CLS_AND_MEAN,
    *_PROJECTIONS,
    BeitForImageClassification,
    SiglipModel,
    Siglip2Model,
)


def read_head(model: Any, encoder: Any, tower: Tower, features: Callable[[nn.Module, Tensor], Tensor]) -> Head:
    """The head of `model`, which holds `encoder`; without one, its features are what the encoder pools.

    Raises:
        ValueError: If the classifier is no linear layer, or a subclass has a `forward` of its own.
    """
    kind = _kind(model)
    if kind in _CLASSIFIERS:
        fields, weights = _linear(model.classifier, "head")
        head = Head({**_CLASSIFIERS[kind], **fields}, weights, lambda images: clip.run(model, images).logits, True)
    elif kind is modeling_deit.DeiTForImageClassificationWithTeacher:
        fields, weights = _linear(model.cls_classifier, "head")
        _, second = _linear(model.distillation_classifier, "head_dist")
        head = Head({"pool": "cls_and_dist", **fields}, {**weights, **second}, lambda x: model(x).logits, True)
    elif kind in _CLS_AND_MEAN:
        fields, weights = _linear(model.classifier, "head")
        if not weights:
            refuse("a DINOv2 classifier without classes, whose features are twice as wide", "Port its encoder.")
        head = Head({"pool": "cls_and_mean", **fields}, weights, lambda images: model(images).logits, True)
    elif kind is BeitForImageClassification:
        fields, weights = _linear(model.classifier, "head")
        head = Head({**beit.read_pool(encoder), **fields}, weights, lambda images: model(images).logits, True)
    elif kind in _PROJECTIONS:
        fields, weights = _linear(model.visual_projection, "head")
        head = Head({"pool": "cls", **fields}, weights, lambda x: model.visual_projection(features(encoder, x)))
    else:
        fields, weights = _pool(encoder, tower)
        head = Head({"n_classes": 0, **fields}, weights, lambda images: features(encoder, images))
    return head


def _kind(model: Any) -> type:
    """The class of transformers that a model is, or extends without another `forward`."""
    for cls in MODELS:
        if isinstance(model, cls):
            if type(model).forward is not cls.forward:
                refuse(f"{qualified(model)}.forward, which replaces {cls.__name__}'s own", "Port its encoder.")
            return cls
    return type(model)


def _linear(layer: Any, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if type(layer) is nn.Identity:
        return {"n_classes": 0}, {}
    if type(layer) is not nn.Linear:
        refuse(f"a {qualified(layer)} as the head", "Port the encoder, and use `with_class_embeddings`.")
    weights: dict[str, Tensor] = {f"{name}.weight": layer.weight}
    if layer.bias is not None:
        weights[f"{name}.bias"] = layer.bias
    return {"n_classes": layer.out_features, "head_bias": layer.bias is not None}, weights


def _pool(encoder: Any, tower: Tower) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if isinstance(encoder, beit.BeitModel):
        return beit.read_pool(encoder), {}
    if getattr(encoder, "use_head", False):
        fields, weights = clip.read_attention_pool(encoder.head)
        return {"pool": "attention", **fields}, weights
    return dict(_CLS if tower.fields.get("has_cls", True) else _AVERAGE), {}
