"""Patches' classes as a segmentation: how well the top class of each patch matches object masks, block by block."""

from analyses.segmentation.linear_head import fit_patch_head
from analyses.segmentation.measures import (
    ClassPixels,
    count_pixels,
    mean_iou,
    patch_pixels,
    pixel_accuracy,
    segmentation_map,
)
from analyses.segmentation.over_dataset import Segmentation

__all__ = [
    "ClassPixels",
    "Segmentation",
    "count_pixels",
    "fit_patch_head",
    "mean_iou",
    "patch_pixels",
    "pixel_accuracy",
    "segmentation_map",
]
