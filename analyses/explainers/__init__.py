"""Methods that say which patches matter for a class, one file for each idea, all called alike."""

from analyses.explainers.attention_maps import attention_rollout, raw_attention
from analyses.explainers.captum_maps import input_gradients, integrated_gradients
from analyses.explainers.explainer import METHODS, Explainer, explainer, needs_pixels
from analyses.explainers.grad_cam import grad_cam
from analyses.explainers.probe_order import ProbeOrder
from analyses.explainers.random_map import random_map
from analyses.explainers.relevance import gradient_attention, relevance

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
