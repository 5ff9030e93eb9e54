"""Datasets with class labels and object masks."""

from analyses.data.cifar import Cifar100
from analyses.data.dataset import LabelledImages
from analyses.data.emoji_scenes.classes import ARTISTS, EmojiClass
from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.data.image_folder import ImageFolder
from analyses.data.imagenet_s import ImageNetS
from analyses.data.masks import mask_like
from analyses.data.open import open_dataset
from analyses.data.emoji_scenes.sample_pictures import SampleScene, sample_scenes
from analyses.data.emoji_scenes.batch import Scene, SceneBatch
from analyses.data.patch_labels import token_labels

__all__ = [
    "ARTISTS",
    "Cifar100",
    "EmojiClass",
    "EmojiScenes",
    "ImageFolder",
    "ImageNetS",
    "LabelledImages",
    "SampleScene",
    "Scene",
    "SceneBatch",
    "mask_like",
    "open_dataset",
    "sample_scenes",
    "token_labels",
]
