"""Datasets with class labels and object masks."""

from analyses.data.emoji_classes import ARTISTS, EmojiClass
from analyses.data.emoji_scenes import EmojiScenes
from analyses.data.samples import SampleScene, sample_scenes
from analyses.data.scene_batch import Scene, SceneBatch
from analyses.data.token_labels import token_labels

__all__ = [
    "ARTISTS",
    "EmojiClass",
    "EmojiScenes",
    "SampleScene",
    "Scene",
    "SceneBatch",
    "sample_scenes",
    "token_labels",
]
