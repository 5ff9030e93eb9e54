"""Outlier tokens: their norms and the attention they draw, the neurons that make them, and test-time registers."""

from analyses.outliers.compare import compare_registers
from analyses.outliers.neurons import OutlierNeurons, register_neurons
from analyses.outliers.over_dataset import Outliers
from analyses.outliers.scores import OutlierScores, attention_received, norm_ratios, outlier_names, outlier_scores

__all__ = [
    "OutlierNeurons",
    "OutlierScores",
    "Outliers",
    "attention_received",
    "compare_registers",
    "norm_ratios",
    "outlier_names",
    "outlier_scores",
    "register_neurons",
]
