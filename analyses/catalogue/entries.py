"""The analyses of this package, one entry each, and how their tables are drawn and defined."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd
from matplotlib.figure import Figure

from analyses.analysis.base import Analysis, analysis_name
from analyses.catalogue import definitions, headlines
from analyses.catalogue.definitions import Definition
from analyses.catalogue.headlines import Headline
from analyses.categorical_updates import CategoricalUpdates
from analyses.circuits import CircuitFaithfulness
from analyses.dictionaries import DictionaryFidelity
from analyses.early_exit import EarlyExit
from analyses.faithfulness import Faithfulness, Localisation
from analyses.identifiability import Identifiability
from analyses.memory_pairs import CausalMemories, Compositionality, KeyValueAgreement
from analyses.outliers import Outliers
from analyses.patching import AblationStudy
from analyses.perturbation import Perturbation
from analyses.plots.categorical_updates import categorical_updates_figure
from analyses.plots.causal_memories import causal_memories_figure
from analyses.plots.circuit_curves import circuit_faithfulness_figure
from analyses.plots.class_value_agreement import value_vector_statistics_figure
from analyses.plots.dictionaries import dictionary_fidelity_figure
from analyses.plots.early_exit import early_exit_figure
from analyses.plots.explanation_quality import faithfulness_figure, localisation_figure
from analyses.plots.identifiability import identifiability_figure
from analyses.plots.memory_pairs import compositionality_figure, key_value_agreement_figure
from analyses.plots.outliers import outliers_figure
from analyses.plots.patching import ablation_figure
from analyses.plots.perturbation import perturbation_figure
from analyses.plots.robustness import failure_figure, robustness_figure
from analyses.plots.segmentation import segmentation_figure
from analyses.plots.tidy import block_figures
from analyses.plots.token_pruning import token_pruning_figure
from analyses.robustness import FailurePrediction, Robustness
from analyses.segmentation import Segmentation
from analyses.token_pruning import TokenPruning
from analyses.value_vectors import ClassValueAgreement

__all__ = ["CATALOGUE", "Entry", "definition_of", "figures_of"]


@dataclass(frozen=True)
class Entry:
    """Everything that commands and reports know about one analysis.

    Attributes:
        analysis: The class.
        command: Its name on the command line.
        figure: Draws its table.
        definition: What it measures, in words.
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


_ENTRIES = (
    Entry(
        Identifiability,
        "identifiability",
        identifiability_figure,
        definitions.IDENTIFIABILITY,
        headlines.IDENTIFIABILITY,
        draws_null=True,
    ),
    Entry(
        CategoricalUpdates,
        "updates",
        categorical_updates_figure,
        definitions.CATEGORICAL_UPDATES,
        headlines.CATEGORICAL_UPDATES,
    ),
    Entry(Perturbation, "perturbation", perturbation_figure, definitions.PERTURBATION, headlines.PERTURBATION),
    Entry(KeyValueAgreement, "key-value", key_value_agreement_figure, definitions.KEY_VALUE_AGREEMENT),
    Entry(
        Compositionality,
        "compositionality",
        compositionality_figure,
        definitions.COMPOSITIONALITY,
        headlines.COMPOSITIONALITY,
    ),
    Entry(
        ClassValueAgreement,
        "class-value",
        value_vector_statistics_figure,
        definitions.CLASS_VALUE_AGREEMENT,
        draws_null=True,
    ),
    Entry(CausalMemories, "causal-memories", causal_memories_figure, definitions.CAUSAL_MEMORIES),
    Entry(Faithfulness, "faithfulness", faithfulness_figure, definitions.FAITHFULNESS, compares_methods=True),
    Entry(Localisation, "localisation", localisation_figure, definitions.LOCALISATION, compares_methods=True),
    Entry(
        Segmentation,
        "segmentation",
        segmentation_figure,
        definitions.SEGMENTATION,
        headlines.SEGMENTATION,
        draws_null=True,
    ),
    Entry(Robustness, "robustness", robustness_figure, definitions.ROBUSTNESS, draws_null=True),
    Entry(
        FailurePrediction,
        "failure-prediction",
        failure_figure,
        definitions.FAILURE_PREDICTION,
        draws_null=True,
    ),
    Entry(Outliers, "outliers", outliers_figure, definitions.OUTLIERS, headlines.OUTLIERS, draws_null=True),
    Entry(AblationStudy, "ablation", ablation_figure, definitions.ABLATION),
    Entry(
        CircuitFaithfulness,
        "circuits",
        circuit_faithfulness_figure,
        definitions.CIRCUIT_FAITHFULNESS,
        draws_null=True,
    ),
    Entry(DictionaryFidelity, "dictionary", dictionary_fidelity_figure, definitions.DICTIONARY_FIDELITY),
    Entry(TokenPruning, "token-pruning", token_pruning_figure, definitions.TOKEN_PRUNING, draws_null=True),
    Entry(EarlyExit, "early-exit", early_exit_figure, definitions.EARLY_EXIT, draws_null=True),
)

CATALOGUE: Mapping[str, Entry] = MappingProxyType({analysis_name(entry.analysis): entry for entry in _ENTRIES})
"""Every analysis of this package, by `analysis_name` of its class."""


def figures_of(name: str, table: pd.DataFrame, n_classes: int, null: pd.DataFrame | None = None) -> dict[str, Figure]:
    """Draw a table of a sweep: with the analysis's own figure, or else one figure per metric.

    Args:
        name: The analysis, as in `CATALOGUE`; any other string for an analysis that is not in it.
        table: The table of the analysis.
        n_classes: The model's number of classes; some figures draw chance.
        null: The same table for the model freshly initialised, for figures that show it.

    Returns:
        Figures by the suffix of the table's name in a file name: "" for the only one. Empty if nothing can be drawn.

    >>> figures_of("own", pd.DataFrame({"layer": [0, 1], "metric": "rate", "value": [1.0, 2.0]}), 10).keys()
    dict_keys(['-rate'])
    """
    if name not in CATALOGUE:
        return {f"-{metric}": figure for metric, figure in block_figures(table).items()}
    draw, optional = CATALOGUE[name].figure, {"n_classes": n_classes, "null": null}
    accepted = {key: value for key, value in optional.items() if key in inspect.signature(draw).parameters}
    return {"": draw(table, **accepted)}


def definition_of(name: str, table_name: str, docstring: str | None) -> Definition:
    """The definition of an analysis; for one that is not in `CATALOGUE`, the first paragraph of its docstring.

    >>> definition_of("own", "own_idea", "It counts. Twice.\\n\\nDetails.").terms
    {'own_idea': 'It counts. Twice.'}
    """
    if name in CATALOGUE:
        return CATALOGUE[name].definition
    first = " ".join((docstring or "").partition("\n\n")[0].split())
    return Definition(table_name.replace("_", " ").capitalize(), "", {table_name: first} if first else {})
