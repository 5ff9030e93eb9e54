"""Emoji Scenes: an unlimited dataset of synthetic pictures with exact masks and a taxonomy of classes."""

from analyses.data.emoji_scenes.batch import Scene, SceneBatch
from analyses.data.emoji_scenes.classes import ARTISTS, EmojiClass, emoji_groups, group_of_class
from analyses.data.emoji_scenes.sample_pictures import SampleScene, sample_scenes
from analyses.data.emoji_scenes.scenes import EmojiScenes

__all__ = [
    "ARTISTS",
    "EmojiClass",
    "EmojiScenes",
    "SampleScene",
    "Scene",
    "SceneBatch",
    "emoji_groups",
    "group_of_class",
    "sample_scenes",
]
