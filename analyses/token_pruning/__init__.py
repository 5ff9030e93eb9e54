"""Token pruning and merging: how few patches the model needs, and whether they are those that class space names."""

from analyses.token_pruning.matching import TokenGroups, bipartite_matching
from analyses.token_pruning.merging import fused_logits, merged_logits
from analyses.token_pruning.over_dataset import TokenPruning
from analyses.token_pruning.pruning import PrunedRun, pruned_logits
from analyses.token_pruning.scores import PATCH_SCORES, PatchScore, patch_scores

__all__ = [
    "PATCH_SCORES",
    "PatchScore",
    "PrunedRun",
    "TokenGroups",
    "TokenPruning",
    "bipartite_matching",
    "fused_logits",
    "merged_logits",
    "patch_scores",
    "pruned_logits",
]
