"""Which figure draws which analysis's table."""

import inspect
from importlib import import_module

import pandas as pd
from matplotlib.figure import Figure

__all__ = ["FIGURES", "draws_null", "figures_of"]

FIGURES = {
    "analyses.identifiability.Identifiability": ("analyses.plots.identifiability", "identifiability_figure"),
    "analyses.categorical_updates.over_dataset.CategoricalUpdates": (
        "analyses.plots.categorical_updates",
        "categorical_updates_figure",
    ),
    "analyses.perturbation.over_dataset.Perturbation": ("analyses.plots.perturbation", "perturbation_figure"),
    "analyses.memory_pairs.agreement.KeyValueAgreement": ("analyses.plots.memory_pairs", "key_value_agreement_figure"),
    "analyses.memory_pairs.composition.Compositionality": ("analyses.plots.memory_pairs", "compositionality_figure"),
    "analyses.value_vectors.alignment.ClassValueAgreement": (
        "analyses.plots.class_value_agreement",
        "value_vector_statistics_figure",
    ),
    "analyses.memory_pairs.causal.CausalMemories": ("analyses.plots.causal_memories", "causal_memories_figure"),
    "analyses.faithfulness.over_dataset.Faithfulness": ("analyses.plots.explanation_quality", "faithfulness_figure"),
    "analyses.faithfulness.over_dataset.Localisation": ("analyses.plots.explanation_quality", "localisation_figure"),
    "analyses.patching.ablation.AblationStudy": ("analyses.plots.patching", "ablation_figure"),
}
"""Module and function that draw an analysis's table, where it has a figure of its own."""

_WITH_CONTROL = (
    "analyses.identifiability.Identifiability",
    "analyses.value_vectors.alignment.ClassValueAgreement",
)


def figures_of(kind: str, table: pd.DataFrame, n_classes: int, null: pd.DataFrame | None = None) -> dict[str, Figure]:
    """Draw a table of a sweep: the figure that its analysis has, or else one for each metric.

    Args:
        kind: The analysis, by module and class; any other string if it is unknown.
        table: What it computed.
        n_classes: Of the model: some figures draw chance.
        null: The same table of the model freshly initialised, for figures that draw it.

    Returns:
        Figures, by what is put behind the table's name: "" for the only one; none if there is nothing to draw.

    >>> figures_of("mine.Own", pd.DataFrame({"layer": [0, 1], "metric": "rate", "value": [1.0, 2.0]}), 10).keys()
    dict_keys(['-rate'])
    """
    if kind in FIGURES:
        module, function = FIGURES[kind]
        draw = getattr(import_module(module), function)
        offered = {"n_classes": n_classes, "null": null}
        taken = {name: value for name, value in offered.items() if name in inspect.signature(draw).parameters}
        return {"": draw(table, **taken)}

    from analyses.plots.tidy import block_figures

    return {f"-{metric}": figure for metric, figure in block_figures(table).items()}


def draws_null(kind: str) -> bool:
    """Whether the figure of an analysis has the untrained model in it, or needs none: memories have controls inside.

    >>> draws_null("analyses.identifiability.Identifiability"), draws_null("analyses.perturbation.over_dataset.Perturbation")
    (True, False)
    """
    return kind in _WITH_CONTROL
