"""How faithful explanation maps are: removal curves, and localisation of the object (paper, section 6)."""

from analyses.faithfulness.areas import AucRule, auc_interval, removal_auc
from analyses.faithfulness.localisation import (
    average_precision,
    mask_iou,
    pointing_game,
    two_object_scores,
    two_object_test,
)
from analyses.faithfulness.over_dataset import SWEPT_METHODS, Faithfulness, Localisation
from analyses.faithfulness.pixels import deletion_curve, insertion_curve
from analyses.faithfulness.removal import RemovalCurve, removal_curve, removal_order

__all__ = [
    "SWEPT_METHODS",
    "AucRule",
    "Faithfulness",
    "Localisation",
    "RemovalCurve",
    "auc_interval",
    "average_precision",
    "deletion_curve",
    "insertion_curve",
    "mask_iou",
    "pointing_game",
    "removal_auc",
    "removal_curve",
    "removal_order",
    "two_object_scores",
    "two_object_test",
]
