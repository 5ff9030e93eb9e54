"""The one table of analyses: name -> class, figure, definition, headline numbers and where they were published."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses.analysis.base import Analysis, analysis_name
from analyses.categorical_updates import CategoricalUpdates
from analyses.faithfulness import Faithfulness, Localisation
from analyses.identifiability import Identifiability
from analyses.memory_pairs import CausalMemories, Compositionality, KeyValueAgreement
from analyses.patching import AblationStudy
from analyses.perturbation import Perturbation
from analyses.plots.categorical_updates import categorical_updates_figure
from analyses.plots.causal_memories import causal_memories_figure
from analyses.plots.class_value_agreement import value_vector_statistics_figure
from analyses.plots.explanation_quality import faithfulness_figure, localisation_figure
from analyses.plots.identifiability import identifiability_figure
from analyses.plots.memory_pairs import compositionality_figure, key_value_agreement_figure
from analyses.plots.patching import ablation_figure
from analyses.plots.perturbation import perturbation_figure
from analyses.plots.tidy import block_figures
from analyses.value_vectors import ClassValueAgreement

__all__ = ["CATALOGUE", "Definition", "Entry", "Headline", "definition_of", "figures_of"]


@dataclass(frozen=True)
class Headline:
    """A number of a report: which row of an analysis's table it is, after the last block.

    Attributes:
        label: What it is.
        unit: "%", "points" (of percent), "logits", or "" for a quantity between -1 and 1.
        where: The values that select the row, by column.
        column: The column with the number.
        published: The key of the paper's published value, as in `analyses.pages.report.published`; "" if there is none.
    """

    label: str
    unit: str
    where: Mapping[str, Any]
    column: str = "value"
    published: str = ""


@dataclass(frozen=True)
class Definition:
    """What an analysis measures, in words.

    Attributes:
        title: The heading of its section in a report.
        paper: The section of the paper; "" for a question that the paper leaves open.
        terms: The quantities in its figure: each term with a definition of a sentence or two.
        control: What its numbers are compared with.
    """

    title: str
    paper: str
    terms: Mapping[str, str]
    control: str = ""


@dataclass(frozen=True)
class Entry:
    """All that commands and reports know about one analysis.

    Attributes:
        analysis: The class.
        command: Its name on the command line.
        figure: Draws its table.
        definition: What it measures.
        headlines: Its most important numbers, as far as they are single rows of its table.
        draws_null: Whether its figure shows the untrained model, or needs no such control.
        compares_methods: Whether it compares explanation methods, passed as `methods`.
    """

    analysis: type[Analysis]
    command: str
    figure: Callable[..., Figure]
    definition: Definition
    headlines: Sequence[Headline] = ()
    draws_null: bool = False
    compares_methods: bool = False


_ALL_PATCHES = {"token_type": "patch", "region": "all"}
_RATE = {"metric": "identifiability_rate", **_ALL_PATCHES}
_RATE_OF_IMAGES = {"metric": "identifiability_rate_of_images", **_ALL_PATCHES}
_CHANGE_RATE = {"reference": "block_input", "images": "all", "metric": "similarity_change_rate", "region": "all"}

_IDENTIFIABILITY = (
    Headline("patch tokens with the class on top", "%", _RATE, published="rate"),
    Headline("images with at least one such patch", "%", {"metric": "images_with_identifiable", **_ALL_PATCHES},
             published="images_with_one"),
    Headline("identifiability of patches", "", {"metric": "identifiability", **_ALL_PATCHES}),
    Headline("identifiability of CLS", "", {"metric": "identifiability", "token_type": "cls"}),
    Headline("identifiability of patches on the object", "",
             {"metric": "identifiability", "token_type": "patch", "region": "object"}),
    Headline("identifiability of patches of context", "",
             {"metric": "identifiability", "token_type": "patch", "region": "context"}),
    Headline("object minus context, within images", "",
             {"metric": "identifiability", "region": "object_minus_context"}),
)  # fmt: skip
_CATEGORICAL_UPDATES = (
    *(
        Headline(f"{name}: {tokens} moved towards the class, share", "",
                 {**_CHANGE_RATE, "stream": stream, "token_type": token_type})
        for stream, name in (("attn_out", "attention"), ("mlp_out", "MLP"))
        for token_type, tokens in (("cls", "CLS"), ("patch", "patches"))
    ),
    *(
        Headline(f"patches whose top class is that of {name}", "%",
                 {**_ALL_PATCHES, "images": "all", "metric": f"composition_{part}"})
        for part, name in (("previous", "the block's input"), ("attn", "attention"), ("mlp", "the MLP"),
                           ("none", "none of the three"))
    ),
)  # fmt: skip
_PERTURBATION = (
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
_COMPOSITIONALITY = tuple(
    Headline(f"{name}, 5 memories, all tokens", "%",
             {"metric": "compositionality", "images": "all", "token_type": "all", "k": 5, "coefficients": coefficients})
    for coefficients, name in (("z", "attention"), ("pre", "MLP, coefficients before the activation function"),
                               ("post", "MLP, coefficients after the activation function"))
)  # fmt: skip

_UNTRAINED = "The model freshly initialised, over the same images."
_ENTRIES = (
    Entry(
        Identifiability,
        "identifiability",
        identifiability_figure,
        Definition(
            "Class identifiability, block by block",
            "section 4",
            {
                "Class identifiability": "Each token x of the residual stream is projected onto the classes, "
                "p = E · norm(x) + b. With rank the number of classes whose logit is above the correct class's, of C "
                "classes, identifiability is r = 1 − rank / C: 1 where the correct class is on top, about one half by "
                "chance.",
                "Identifiability rate": "The percentage of tokens with rank 0; of images, the percentage with at "
                "least one such patch token.",
                "Class against context tokens": "Patches on the object (the object's mask on the patch grid) minus "
                "patches of context, each image with itself, where the dataset has masks.",
                "Change rate": "The share of tokens whose correct-class logit rises from one block's output to the "
                "next.",
            },
            _UNTRAINED,
        ),
        headlines=_IDENTIFIABILITY,
        draws_null=True,
    ),
    Entry(
        CategoricalUpdates,
        "updates",
        categorical_updates_figure,
        Definition(
            "Sub-layer updates and residual composition",
            "section 5.1",
            {
                "Class-similarity change rate": "The share of tokens whose correct-class logit is greater in the "
                "projection of a sub-layer's output than in that of the block's input; the size of the update is the "
                "mean difference of the two.",
                "Residual composition": "The percentage of tokens whose top class after the block is that of the "
                "block's input, of attention's output, of the MLP's output, or of none of the three. Parts may agree "
                "with each other, so percentages do not add up to 100.",
            },
            _UNTRAINED,
        ),
        headlines=_CATEGORICAL_UPDATES,
    ),
    Entry(
        Perturbation,
        "perturbation",
        perturbation_figure,
        Definition(
            "Impact of attention and of context",
            "section 4",
            {
                "self only": "Each patch token attends to itself alone; prefix tokens attend as ever.",
                "no CLS": "Patch tokens' attention to CLS is set to 0, and not renormalised.",
                "no context, no object": "Tokens outside (or inside) the object's mask are dropped after the position "
                "embedding. As published, the rate after is a mean over images, and the rate before one over tokens.",
            },
            _UNTRAINED,
        ),
        headlines=_PERTURBATION,
    ),
    Entry(
        KeyValueAgreement,
        "key-value",
        key_value_agreement_figure,
        Definition(
            "Memories: key-value agreement",
            "section 5.2",
            {
                "Key-value agreement rate": "A neuron of an MLP, or a dimension of an attention head, is a memory: "
                "its activation is a coefficient, its row of the output matrix a value vector. The rate is the "
                "percentage of tokens for which at least one of the 5 largest coefficients is of one of the 5 value "
                "vectors with the largest logit for the correct class."
            },
            "A class drawn at random in the place of the correct one, as an exact expectation.",
        ),
    ),
    Entry(
        Compositionality,
        "compositionality",
        compositionality_figure,
        Definition(
            "Memories: compositionality",
            "section 5.2",
            {
                "Compositionality": "The percentage of tokens for which the top class of a sub-layer's output is the "
                "top class of none of the value vectors of the k largest coefficients: no single memory predicts "
                "what they predict together."
            },
            _UNTRAINED,
        ),
        headlines=_COMPOSITIONALITY,
    ),
    Entry(
        ClassValueAgreement,
        "class-value",
        value_vector_statistics_figure,
        Definition(
            "Memories: class-value agreement",
            "section 5.2",
            {
                "Class-value agreement": "For each class, the largest cosine between the class's embedding and the "
                "value vectors of a layer; mean over classes. Filled markers: above the untrained model, Wilcoxon's "
                "signed-rank test with classes as pairs, one-sided, p < 0.05 after Holm's correction over blocks. A "
                "property of the weights: no image takes part, and intervals are over classes."
            },
            "The model freshly initialised.",
        ),
        draws_null=True,
    ),
    Entry(
        CausalMemories,
        "causal-memories",
        causal_memories_figure,
        Definition(
            "Memories, causally",
            "",
            {
                "Causal test": "The coefficients of k memories of one block are set to zero, to their mean, or "
                "multiplied, at every token, and the rest of the model runs on. Drawn is what becomes of the correct "
                "class's logit and of accuracy: after minus before."
            },
            "As many random memories whose value vectors are as long; and memories of another class.",
        ),
    ),
    Entry(
        Faithfulness,
        "faithfulness",
        faithfulness_figure,
        Definition(
            "Faithfulness of feature importance and its rivals",
            "section 6",
            {
                "Feature importance": "Of patch s at block b and head h: minus the derivative of the cross-entropy of "
                "E · norm(attention's output at CLS) with respect to the attention of CLS to s, local to the block; "
                "summed over heads and blocks.",
                "Faithfulness": "Accuracy while patch tokens are removed from least to most important (negative: a "
                "good map keeps it high) or the reverse (positive: it falls early). The published area is the sum of "
                "the accuracies over (the largest accuracy × the number of patches).",
            },
            "Patches removed in random order.",
        ),
        compares_methods=True,
    ),
    Entry(
        Localisation,
        "localisation",
        localisation_figure,
        Definition(
            "Localisation of the object",
            "",
            {
                "Pointing game": "The share of images whose most important patch lies on the object.",
                "Mask IoU": "The overlap of the object with as many of the most important patches as it has.",
                "Average precision": "Of patches ranked by importance, against those on the object.",
            },
            "Chance: the mean share of patches on the object.",
        ),
        compares_methods=True,
    ),
    Entry(
        AblationStudy,
        "ablation",
        ablation_figure,
        Definition(
            "Ablation of every head and MLP",
            "",
            {
                "Ablation": "Each head and each MLP in turn writes its mean over images, position by position, in the "
                "place of what it computes. Drawn is what changes, after minus before: accuracy, the correct class's "
                "logit, and identifiability of patches after the last block."
            },
        ),
    ),
)

CATALOGUE: Mapping[str, Entry] = MappingProxyType({analysis_name(entry.analysis): entry for entry in _ENTRIES})
"""Every analysis that comes with this package, by `analysis_name` of its class."""


def figures_of(name: str, table: pd.DataFrame, n_classes: int, null: pd.DataFrame | None = None) -> dict[str, Figure]:
    """Draw a table of a sweep: with the analysis's own figure, or else one figure for each metric.

    Args:
        name: The analysis, as in `CATALOGUE`; any other string if it is not in it.
        table: What it computed.
        n_classes: Number of classes of the model; some figures draw chance.
        null: The same table for the model freshly initialised, for figures that show it.

    Returns:
        Figures by the suffix that goes after the table's name: "" for the only one. Empty if there is nothing to draw.

    >>> figures_of("own", pd.DataFrame({"layer": [0, 1], "metric": "rate", "value": [1.0, 2.0]}), 10).keys()
    dict_keys(['-rate'])
    """
    if name not in CATALOGUE:
        return {f"-{metric}": figure for metric, figure in block_figures(table).items()}
    draw, optional = CATALOGUE[name].figure, {"n_classes": n_classes, "null": null}
    taken = {key: value for key, value in optional.items() if key in inspect.signature(draw).parameters}
    return {"": draw(table, **taken)}


def definition_of(name: str, table_name: str, docstring: str | None) -> Definition:
    """The definition of an analysis; for one that is not in `CATALOGUE`, the first paragraph of its docstring.

    >>> definition_of("own", "own_idea", "It counts. Twice.\\n\\nDetails.").terms
    {'own_idea': 'It counts. Twice.'}
    """
    if name in CATALOGUE:
        return CATALOGUE[name].definition
    first = " ".join((docstring or "").partition("\n\n")[0].split())
    return Definition(table_name.replace("_", " ").capitalize(), "", {table_name: first} if first else {})
