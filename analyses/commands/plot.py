"""`hooked-vit plot`: the tables of a sweep as figures."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyses.commands.user_errors import fail, user_errors

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "plot"]

FIGURES = {
    "analyses.identifiability.Identifiability": ("analyses.plots.identifiability", "identifiability_figure"),
    "analyses.categorical_updates.CategoricalUpdates": (
        "analyses.plots.categorical_updates",
        "categorical_updates_figure",
    ),
    "analyses.perturbation.Perturbation": ("analyses.plots.perturbation", "perturbation_figure"),
    "analyses.key_value_agreement.KeyValueAgreement": ("analyses.plots.memory_pairs", "key_value_agreement_figure"),
    "analyses.compositionality.Compositionality": ("analyses.plots.memory_pairs", "compositionality_figure"),
    "analyses.causal_memories.CausalMemories": ("analyses.plots.causal_memories", "causal_memories_figure"),
    "analyses.explanation_quality.Faithfulness": ("analyses.plots.explanation_quality", "faithfulness_figure"),
    "analyses.explanation_quality.Localisation": ("analyses.plots.explanation_quality", "localisation_figure"),
    "analyses.ablation.AblationStudy": ("analyses.plots.patching", "ablation_figure"),
}
"""Module and function that draw an analysis's table, where it has a figure of its own."""


def plot(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `hooked-vit sweep --out` wrote.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the figures go; beside the tables, if not told.")
    ] = None,
) -> None:
    """Draw what a sweep has found: a figure for each analysis, or, of analyses of your own, for each metric."""
    from analyses.sweeping.store import Store

    target = out or folder
    with user_errors(ValueError, OSError):
        store = Store(folder)
        record = store.read_record()
        if record is None:
            fail(f"no sweep in '{folder}': expected the folder that `hooked-vit sweep --out` wrote")
        if not record["finished"]:
            fail(f"the sweep in '{folder}' is not finished: run it again, and it goes on where it stopped")
        tables = store.read_tables(record["tables"])
        target.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            of = record["analyses"].get(name, {}).get("type", "")
            for suffix, figure in _figures(of, table, record["model"]["cfg"]["n_classes"]).items():
                path = target / f"{name}{suffix}.png"
                figure.savefig(path, dpi=120)
                typer.echo(path)


def _figures(of: str, table: "pd.DataFrame", n_classes: int) -> "dict[str, Figure]":
    """By what is put behind the table's name."""
    if of in FIGURES:
        module, function = FIGURES[of]
        draw = getattr(import_module(module), function)
        knows_chance = "n_classes" in inspect.signature(draw).parameters
        return {"": draw(table, n_classes=n_classes) if knows_chance else draw(table)}

    from analyses.plots.tidy import block_figures

    return {f"-{metric}": figure for metric, figure in block_figures(table).items()}
