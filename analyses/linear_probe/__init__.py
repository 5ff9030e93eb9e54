"""Linear probes: ridge regression for each layer and position, compared with class projection."""

from analyses.linear_probe.comparison import compare_with_projection, probe_ranks, projection_ranks
from analyses.linear_probe.features import ProbeFeatures, probe_features
from analyses.linear_probe.ridge import RidgeProbe, fit_ridge_probe

__all__ = [
    "ProbeFeatures",
    "RidgeProbe",
    "compare_with_projection",
    "fit_ridge_probe",
    "probe_features",
    "probe_ranks",
    "projection_ranks",
]
