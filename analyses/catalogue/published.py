"""The paper's published values, by model and quantity, for comparison with measured ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["PUBLISHED", "SETTING", "SOURCE", "PublishedModel", "in_published_setting", "published_of"]

SOURCE = (
    "Vilas, Schaumlöffel and Roig: Analyzing Vision Transformers for Image Classification in Class Embedding Space, "
    "NeurIPS 2023, arXiv 2310.18969"
)
SETTING = "ImageNet-S, validation, 5 images per class"


@dataclass(frozen=True)
class PublishedModel:
    """The published values of one model.

    Attributes:
        title: The paper's name for it.
        values: Quantity to number: `rate` and `images_with_one` (percent of patch tokens and of images, last block),
            `accuracy` (percent), `rate_self_only`, `rate_no_cls`, and for context `…_before` and `…_after`; areas
            under the accuracy curve are `auc_DIRECTION/METHOD`.
        untrained: The same for the model freshly initialised.
        names: timm's names of these weights; empty if timm does not have them.
    """

    title: str
    values: Mapping[str, float]
    untrained: Mapping[str, float]
    names: tuple[str, ...] = ()


def _model(
    title: str, rate: float, images: float, accuracy: float, *names: str, untrained: Any = None, **more: float
) -> PublishedModel:
    return PublishedModel(
        title,
        {"rate": rate, "images_with_one": images, "accuracy": accuracy, **more},
        dict(zip(("rate", "images_with_one"), untrained or (), strict=False)),
        names,
    )


_B32 = {
    "rate_self_only": 0.13,
    "rate_no_cls": 60.71,
    "rate_no_context_before": 71.92,
    "rate_no_context_after": 44.70,
    "rate_no_object_before": 56.24,
    "rate_no_object_after": 38.68,
    "auc_negative/importance": 0.836,
    "auc_negative/relevance": 0.845,
    "auc_negative/probe": 0.739,
    "auc_negative/random": 0.716,
    "auc_positive/importance": 0.413,
    "auc_positive/relevance": 0.393,
    "auc_positive/probe": 0.683,
    "auc_positive/random": 0.716,
}
PUBLISHED = {
    "B/32": _model(
        "ViT-B/32", 60.73, 95.58, 81.71, "vit_base_patch32_224.augreg_in21k_ft_in1k", untrained=(0.066, 1.27), **_B32
    ),
    "B/16": _model(
        "ViT-B/16", 67.04, 97.45, 85.69, "vit_base_patch16_224.augreg_in21k_ft_in1k", untrained=(0.056, 2.18)
    ),
    "L/16": _model("ViT-L/16", 72.58, 97.12, 86.00, "vit_large_patch16_224.augreg_in21k_ft_in1k"),
    "MIIL": _model("ViT-B/16-MIIL", 78.52, 95.52, 86.26, "vit_base_patch16_224_miil.in21k_ft_in1k"),
    "CIFAR": _model("ViT-B/16-CIFAR", 90.35, 98.80, 92.00),
    "refinement": _model("ViT-B/16-Refinement", 79.64, 96.26, 84.97),
    "GAP": _model("ViT-B/16-GAP", 52.09, 98.53, 84.13, "vit_base_patch16_rpn_224.sw_in1k"),
}
"""By short name."""


def published_of(name: str) -> PublishedModel | None:
    """The published values of a model, by timm's name with its tag, or by a short name from `PUBLISHED`.

    A name without a tag does not identify a model: timm may change the weights that it refers to.

    >>> published_of("vit_base_patch32_224.augreg_in21k_ft_in1k").title, published_of("vit_base_patch32_224")
    ('ViT-B/32', None)
    """
    name = name.removeprefix("hf-hub:").removeprefix("hf_hub:").removeprefix("timm/")
    for short, model in PUBLISHED.items():
        if name.casefold() == short.casefold() or name in model.names:
            return model
    return None


def in_published_setting(dataset: Any) -> bool:
    """Whether a record's description of its dataset is the paper's: ImageNet-S, validation, 5 images per class.

    >>> in_published_setting({"description": {"type": "analyses.data.emoji_scenes.scenes.EmojiScenes"}})
    False
    """
    described = dataset.get("description")
    if not isinstance(described, Mapping):
        return False
    kind = str(described.get("type", ""))
    return kind.endswith("ImageNetS") and described.get("n") == 5 and described.get("partition") == "validation"
