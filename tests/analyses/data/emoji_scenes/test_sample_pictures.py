"""The bundled samples are complete, small, and the scenes that Emoji Scenes draws."""

from pathlib import Path

import numpy as np
import torch

from analyses.data.emoji_scenes.classes import ARTISTS
from analyses.data.emoji_scenes.sample_pictures import sample_scenes, write_samples
from analyses.data.emoji_scenes.scenes import EmojiScenes

FOLDER = sample_scenes()[0].path.parent


def test_the_samples_are_varied_and_small() -> None:
    samples = sample_scenes()
    assert len(samples) == 36
    assert sum(len(sample.labels) == 2 for sample in samples) == 12
    assert len({label for sample in samples for label in sample.labels}) >= 36
    assert {artist for sample in samples for artist in sample.artists} == set(ARTISTS)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 500_000


def test_the_samples_are_what_emoji_scenes_draws() -> None:
    """Files written once, anywhere, equal what is drawn here: pictures, masks, boxes, labels."""
    samples = sample_scenes()
    scenes = EmojiScenes(36, seed=58, objects="mixed")
    batch = scenes.batch(range(36))
    for row, sample in enumerate(samples):
        n_objects = len(sample.labels)
        assert sample.path.is_file()
        assert (np.asarray(sample.picture).transpose(2, 0, 1) == batch.pixels[row].numpy()).all()
        assert list(sample.labels) == batch.labels[row, :n_objects].tolist()
        assert list(sample.class_names) == [scenes.class_names[label] for label in sample.labels]
        assert list(sample.artists) == [ARTISTS[artist] for artist in batch.artists[row, :n_objects]]
        assert torch.equal(sample.masks, batch.masks[row, :n_objects])
        assert [list(box) for box in sample.boxes] == batch.boxes[row, :n_objects].tolist()


def test_writing_it_again_gives_the_same_index(tmp_path: Path) -> None:
    write_samples(tmp_path)
    assert (tmp_path / "index.json").read_text("utf-8") == (FOLDER / "index.json").read_text("utf-8")
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in FOLDER.iterdir()}
