"""The most important numbers of each analysis, as far as they are single rows of its table after the last block."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "CATEGORICAL_UPDATES",
    "COMPOSITIONALITY",
    "IDENTIFIABILITY",
    "OUTLIERS",
    "PERTURBATION",
    "SEGMENTATION",
    "Headline",
]


@dataclass(frozen=True)
class Headline:
    """A number of a report: a row of an analysis's table, after the last block.

    Attributes:
        label: Its name in the report.
        unit: "%", "points" (of percent), "logits", or "" for a quantity between -1 and 1.
        where: The values that select the row, by column.
        column: The column with the number.
        published: The key of the paper's published value, as in `analyses.catalogue.published`; "" if there is none.
    """

    label: str
    unit: str
    where: Mapping[str, Any]
    column: str = "value"
    published: str = ""


_ALL_PATCHES = {"token_type": "patch", "region": "all"}
_RATE = {"metric": "identifiability_rate", **_ALL_PATCHES}
_RATE_OF_IMAGES = {"metric": "identifiability_rate_of_images", **_ALL_PATCHES}
_CHANGE_RATE = {"reference": "block_input", "images": "all", "metric": "similarity_change_rate", "region": "all"}
_IDENTIFIABILITY = {"metric": "identifiability"}

IDENTIFIABILITY = (
    Headline("patch tokens with the class on top", "%", _RATE, published="rate"),
    Headline("images with at least one such patch", "%", {"metric": "images_with_identifiable", **_ALL_PATCHES},
             published="images_with_one"),
    Headline("identifiability of patches", "", {**_IDENTIFIABILITY, **_ALL_PATCHES}),
    Headline("identifiability of CLS", "", {**_IDENTIFIABILITY, "token_type": "cls"}),
    Headline("identifiability of patches on the object", "",
             {**_IDENTIFIABILITY, "token_type": "patch", "region": "object"}),
    Headline("identifiability of patches of context", "",
             {**_IDENTIFIABILITY, "token_type": "patch", "region": "context"}),
    Headline("object minus context, within images", "", {**_IDENTIFIABILITY, "region": "object_minus_context"}),
)  # fmt: skip

CATEGORICAL_UPDATES = (
    *(
        Headline(f"{name}: share of {tokens} moved towards the class", "",
                 {**_CHANGE_RATE, "stream": stream, "token_type": token_type})
        for stream, name in (("attn_out", "attention"), ("mlp_out", "MLP"))
        for token_type, tokens in (("cls", "CLS tokens"), ("patch", "patches"))
    ),
    *(
        Headline(f"patches whose top class is that of {name}", "%",
                 {**_ALL_PATCHES, "images": "all", "metric": f"composition_{part}"})
        for part, name in (("previous", "the block's input"), ("attn", "attention"), ("mlp", "the MLP"),
                           ("none", "none of the three"))
    ),
)  # fmt: skip

PERTURBATION = (
    Headline("rate of patches, unperturbed", "%", {**_RATE, "perturbation": "self_only"}, "before", "rate"),
    Headline("self only: rate of patches", "%", {**_RATE, "perturbation": "self_only"}, "after", "rate_self_only"),
    Headline("no CLS: rate of patches", "%", {**_RATE, "perturbation": "no_cls"}, "after", "rate_no_cls"),
    Headline("patches on the object, with context: rate", "%", {**_RATE, "perturbation": "no_context"},
             "before", "rate_no_context_before"),
    Headline("patches on the object, no context: rate", "%", {**_RATE_OF_IMAGES, "perturbation": "no_context"},
             "after", "rate_no_context_after"),
    Headline("patches of context, with the object: rate", "%", {**_RATE, "perturbation": "no_object"},
             "before", "rate_no_object_before"),
    Headline("patches of context, no object: rate", "%", {**_RATE_OF_IMAGES, "perturbation": "no_object"},
             "after", "rate_no_object_after"),
    *(
        Headline(f"{name}: change of the rate of patches", "points", {**_RATE, "perturbation": perturbation})
        for perturbation, name in (("self_only", "self only"), ("no_cls", "no CLS"), ("no_context", "no context"),
                                   ("no_object", "no object"))
    ),
)  # fmt: skip

COMPOSITIONALITY = tuple(
    Headline(f"{name}, 5 memories, all tokens", "%",
             {"metric": "compositionality", "images": "all", "token_type": "all", "k": 5, "coefficients": coefficients})
    for coefficients, name in (("z", "attention"), ("pre", "MLP, coefficients before the activation function"),
                               ("post", "MLP, coefficients after the activation function"))
)  # fmt: skip

SEGMENTATION = tuple(
    Headline(label, "%", {"metric": metric, "reader": "class_embeddings"})
    for metric, label in (
        ("pixel_accuracy", "object pixels with the class on top"),
        ("object_iou", "overlap of the object with its class's pixels (IoU)"),
        ("mean_iou", "mean IoU over classes"),
    )
)

OUTLIERS = (
    Headline("images with an outlier patch", "%", {"metric": "images_with_outlier", **_ALL_PATCHES}),
    Headline("largest norm of a patch, in medians", "", {"metric": "largest_norm_ratio", **_ALL_PATCHES}),
    Headline("attention to outlier patches", "%", {"metric": "attention_to_outliers", **_ALL_PATCHES}),
)
