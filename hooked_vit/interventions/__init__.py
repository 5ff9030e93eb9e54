"""Interventions: lists of hooks that ablate, replace, move, steer or freeze activations; combine them with `+`."""

from hooked_vit.interventions.attention import attention_mask, block_attention, restrict_attention
from hooked_vit.interventions.directions import add_direction, project_out, random_directions
from hooked_vit.interventions.means import mean_activations
from hooked_vit.interventions.moving import move_neurons
from hooked_vit.interventions.patching_index import patching_index
from hooked_vit.interventions.replacing import (
    Intervention,
    edit,
    freeze_norms,
    freeze_patterns,
    intervene,
    mean_ablate,
    replace_from,
    resample_ablate,
    zero_ablate,
)
from hooked_vit.interventions.selection import Selection
from hooked_vit.token_layout import token_group

__all__ = [
    "Intervention", "Selection", "add_direction", "attention_mask", "block_attention", "edit", "freeze_norms",
    "freeze_patterns", "intervene", "mean_ablate", "mean_activations", "move_neurons", "patching_index",
    "project_out", "random_directions", "replace_from", "resample_ablate", "restrict_attention", "token_group",
    "zero_ablate",
]  # fmt: skip
