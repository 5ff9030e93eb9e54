"""Causal analysis: activation patching, attribution patching, path patching, and ablation."""

from analyses.patching.ablation import AblationStudy
from analyses.patching.activation import activation_patching
from analyses.patching.first_order import attribution_patching
from analyses.patching.metrics import (
    LogitMetric,
    Metric,
    class_probability,
    class_rank,
    kl_divergence,
    logit_difference,
)
from analyses.patching.paths import PathResult, Receiver, Sender, all_receivers, all_senders, path_patching
from analyses.patching.plan import PATCH_STREAMS, PatchStream
from analyses.patching.result import Agreement, Direction, PatchResult, agreement

__all__ = [
    "PATCH_STREAMS",
    "AblationStudy",
    "Agreement",
    "Direction",
    "LogitMetric",
    "Metric",
    "PatchResult",
    "PatchStream",
    "PathResult",
    "Receiver",
    "Sender",
    "activation_patching",
    "agreement",
    "all_receivers",
    "all_senders",
    "attribution_patching",
    "class_probability",
    "class_rank",
    "kl_divergence",
    "logit_difference",
    "path_patching",
]
