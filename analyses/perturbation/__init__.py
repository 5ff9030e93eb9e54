"""Identifiability with perturbed attention and without context (paper, section 4)."""

from analyses.perturbation.attention import no_cls, self_only
from analyses.perturbation.over_dataset import Perturbation
from analyses.perturbation.runs import PerturbedRun, Region, perturb, perturb_stream, region_mask

__all__ = [
    "Perturbation",
    "PerturbedRun",
    "Region",
    "no_cls",
    "perturb",
    "perturb_stream",
    "region_mask",
    "self_only",
]
