"""Perturbed images in class space: where the class representation breaks, what drifts, and what predicts errors."""

from analyses.robustness.adversarial import FGSM, PGD
from analyses.robustness.breaking import breaking_blocks
from analyses.robustness.corruptions import CORRUPTIONS, corruption
from analyses.robustness.failure import FailurePrediction, predict_failure
from analyses.robustness.named import InputPerturbation, named_perturbations, perturbation
from analyses.robustness.over_dataset import Robustness
from analyses.robustness.paired import FromDataset
from analyses.robustness.patches import Occlusion, PatchShuffle
from analyses.robustness.pictures import GaussianBlur, GaussianNoise, OnPictures
from analyses.robustness.quantities import failure_names, failure_quantities

__all__ = [
    "CORRUPTIONS",
    "FGSM",
    "PGD",
    "FailurePrediction",
    "FromDataset",
    "GaussianBlur",
    "GaussianNoise",
    "InputPerturbation",
    "Occlusion",
    "OnPictures",
    "PatchShuffle",
    "Robustness",
    "breaking_blocks",
    "corruption",
    "failure_names",
    "failure_quantities",
    "named_perturbations",
    "perturbation",
    "predict_failure",
]
