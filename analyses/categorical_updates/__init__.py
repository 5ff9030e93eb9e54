"""How attention, MLPs and heads move tokens towards their class (paper, section 5.1)."""

from analyses.categorical_updates.block_projections import Reference, Sublayer
from analyses.categorical_updates.measures import (
    ResidualComposition,
    SimilarityChangeRate,
    residual_composition,
    similarity_change_rate,
    similarity_increase,
)
from analyses.categorical_updates.over_dataset import CategoricalUpdates

__all__ = [
    "CategoricalUpdates",
    "Reference",
    "ResidualComposition",
    "SimilarityChangeRate",
    "Sublayer",
    "residual_composition",
    "similarity_change_rate",
    "similarity_increase",
]
