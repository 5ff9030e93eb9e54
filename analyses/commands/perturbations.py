"""The perturbations that `hooked-vit sweep` is asked for by name, checked before a model is loaded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyses.analysis.base import Analysis
    from analyses.data.dataset import LabelledImages

__all__ = ["check_perturbations", "set_perturbations"]


def check_perturbations(specs: Sequence[str], analyses: "Sequence[Analysis]") -> None:
    """Check perturbations as far as that needs no dataset.

    Raises:
        ValueError: If one is unknown or given twice, or no analysis takes any.
        ImportError: If one needs a package that is not installed.
    """
    from analyses.robustness import FailurePrediction, Robustness, named_perturbations

    if not specs:
        return
    if not any(isinstance(analysis, Robustness | FailurePrediction) for analysis in analyses):
        raise ValueError("--perturb is for robustness and failure-prediction: name one of them in --analyses")
    if len(set(specs)) < len(specs):
        raise ValueError(f"expected each perturbation once, got {', '.join(specs)}")
    named_perturbations([spec for spec in specs if spec != "background"])


def set_perturbations(specs: Sequence[str], analyses: "Sequence[Analysis]", dataset: "LabelledImages") -> None:
    """Give perturbations to the analyses that take them; without specs these keep their own.

    Raises:
        ValueError: If backgrounds are to be swapped in a dataset that cannot do it.
    """
    from analyses.robustness import FailurePrediction, Robustness, named_perturbations

    found = named_perturbations(specs, dataset)
    for analysis in analyses:
        if found and isinstance(analysis, Robustness | FailurePrediction):
            analysis.perturbations = dict(found)
