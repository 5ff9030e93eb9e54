"""Methods that say which patches matter for a class, one file for each idea, all called alike."""

from analyses.feature_importance.attention_maps import attention_rollout, raw_attention
from analyses.feature_importance.pixel_maps import input_gradients, integrated_gradients
from analyses.feature_importance.methods import Explainer, METHODS, explainer, needs_pixels
from analyses.feature_importance.gradient_maps import grad_cam
from analyses.feature_importance.probe_order import ProbeOrder
from analyses.feature_importance.baseline import random_map
from analyses.feature_importance.gradient_maps import gradient_attention, relevance

__all__ = [
    "METHODS",
    "Explainer",
    "ProbeOrder",
    "attention_rollout",
    "explainer",
    "grad_cam",
    "gradient_attention",
    "input_gradients",
    "integrated_gradients",
    "needs_pixels",
    "random_map",
    "raw_attention",
    "relevance",
]
