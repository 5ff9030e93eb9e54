"""Datasets with class labels and object masks, and the labels of patches."""

from analyses.data.cifar import Cifar100
from analyses.data.dataset import LabelledImages
from analyses.data.emoji_scenes import (
    ARTISTS,
    EmojiClass,
    EmojiScenes,
    SampleScene,
    Scene,
    SceneBatch,
    emoji_groups,
    group_of_class,
    sample_scenes,
)
from analyses.data.image_folder import ImageFolder
from analyses.data.imagenet_s import ImageNetS
from analyses.data.masks import mask_like
from analyses.data.open import images_for, open_dataset
from analyses.data.patch_labels import token_labels
from analyses.data.reading import ItemReader

__all__ = [
    "ARTISTS",
    "Cifar100",
    "EmojiClass",
    "EmojiScenes",
    "ImageFolder",
    "ImageNetS",
    "ItemReader",
    "LabelledImages",
    "SampleScene",
    "Scene",
    "SceneBatch",
    "emoji_groups",
    "group_of_class",
    "images_for",
    "mask_like",
    "open_dataset",
    "sample_scenes",
    "token_labels",
]
