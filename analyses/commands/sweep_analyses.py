"""The analyses that `hooked-vit sweep` is asked for by name."""

from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyses.analysis.base import Analysis
    from analyses.projection import Lens

__all__ = ["ANALYSIS_NAMES", "make_analyses", "set_lens"]

ANALYSIS_NAMES = (
    "identifiability", "updates", "perturbation", "key-value", "compositionality", "class-value", "causal-memories",
    "faithfulness", "localisation", "segmentation", "outliers", "ablation", "circuits", "dictionary", "early-exit",
    "robustness", "failure-prediction", "token-pruning",
)  # fmt: skip
"""The names of the catalogue, which is too slow to import for a help text."""


def make_analyses(names: Sequence[str], methods: Sequence[str] = (), with_lens: bool = False) -> "list[Analysis]":
    """The analyses of these names.

    Args:
        names: Command-line names of the catalogue.
        methods: For analyses that compare explanation methods: the methods; all that need no pixels, if empty.
        with_lens: Whether they will be given a lens with `set_lens`.

    Raises:
        ValueError: If there is no such analysis or method, none is named, no analysis compares methods, or an analysis
            that is to be given a lens takes none.
    """
    from analyses.catalogue import CATALOGUE

    entries = {entry.command: entry for entry in CATALOGUE.values()}
    unknown = [name for name in names if name not in entries]
    if unknown or not names:
        raise ValueError(f"no analysis called {', '.join(unknown) or 'nothing'}: there are {', '.join(entries)}")
    comparing = [name for name, entry in entries.items() if entry.compares_methods]
    if methods and not set(names) & set(comparing):
        raise ValueError(f"--method is for {' and '.join(comparing)}: name one of them in --analyses")
    lensless = [name for name in names if "lens" not in signature(entries[name].analysis).parameters]
    if with_lens and lensless:
        can = [name for name, entry in entries.items() if "lens" in signature(entry.analysis).parameters]
        raise ValueError(f"--lens is for {', '.join(can)}: leave out {', '.join(lensless)}, or sweep it without")
    made = []
    for name in dict.fromkeys(names):
        compares = bool(methods) and entries[name].compares_methods
        made.append(entries[name].analysis(**({"methods": tuple(dict.fromkeys(methods))} if compares else {})))
    return made


def set_lens(analyses: "Sequence[Analysis]", lens: "Lens | None") -> None:
    """Let analyses that were made before the model was loaded project through a lens; `None` changes nothing."""
    if lens is not None:
        for analysis in analyses:
            setattr(analysis, "lens", lens)  # noqa: B010  (only some analyses declare it)
