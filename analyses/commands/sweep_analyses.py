"""The analyses that `hooked-vit sweep` is asked for by name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyses.analysis.base import Analysis

__all__ = ["ANALYSIS_NAMES", "make_analyses"]

ANALYSIS_NAMES = (
    "identifiability", "updates", "perturbation", "key-value", "compositionality", "class-value", "causal-memories",
    "faithfulness", "localisation", "segmentation", "outliers", "ablation", "circuits",
)  # fmt: skip
"""The names of the catalogue, which is too slow to import for a help text."""


def make_analyses(names: Sequence[str], methods: Sequence[str] = ()) -> "list[Analysis]":
    """The analyses of these names.

    Args:
        names: Command-line names of the catalogue.
        methods: For analyses that compare explanation methods: the methods; all that need no pixels, if empty.

    Raises:
        ValueError: If there is no such analysis or method, none is named, or no analysis compares methods.
    """
    from analyses.catalogue import CATALOGUE

    entries = {entry.command: entry for entry in CATALOGUE.values()}
    unknown = [name for name in names if name not in entries]
    if unknown or not names:
        raise ValueError(f"no analysis called {', '.join(unknown) or 'nothing'}: there are {', '.join(entries)}")
    comparing = [name for name, entry in entries.items() if entry.compares_methods]
    if methods and not set(names) & set(comparing):
        raise ValueError(f"--method is for {' and '.join(comparing)}: name one of them in --analyses")
    made = []
    for name in dict.fromkeys(names):
        compares = bool(methods) and entries[name].compares_methods
        made.append(entries[name].analysis(**({"methods": tuple(dict.fromkeys(methods))} if compares else {})))
    return made
