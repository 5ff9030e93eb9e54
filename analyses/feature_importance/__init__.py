"""Which patches matter for a class: feature importance in class space and other methods (paper, section 6)."""

from analyses.feature_importance.attention_maps import attention_rollout, raw_attention
from analyses.feature_importance.baseline import random_map
from analyses.feature_importance.gradient_maps import grad_cam, gradient_attention, relevance
from analyses.feature_importance.importance import (
    feature_importance,
    importance_from_cache,
    importance_map,
    importance_names,
    saturated_blocks,
)
from analyses.feature_importance.methods import CLASS_AGNOSTIC, METHODS, Explainer, explainer, needs_pixels
from analyses.feature_importance.pixel_maps import input_gradients, integrated_gradients
from analyses.feature_importance.probe_order import ProbeOrder

__all__ = [
    "CLASS_AGNOSTIC",
    "METHODS",
    "Explainer",
    "ProbeOrder",
    "attention_rollout",
    "explainer",
    "feature_importance",
    "grad_cam",
    "gradient_attention",
    "importance_from_cache",
    "importance_map",
    "importance_names",
    "input_gradients",
    "integrated_gradients",
    "needs_pixels",
    "random_map",
    "raw_attention",
    "relevance",
    "saturated_blocks",
]
