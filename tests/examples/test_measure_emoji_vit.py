"""Measurements against counts by hand, and against models whose answers are known."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from analyses.data.emoji_scenes.classes import emoji_groups
from analyses.data.emoji_scenes.scenes import EmojiScenes

sys.path.append(str(Path(__file__).parents[2] / "examples"))
measuring = importlib.import_module("measure_emoji_vit")


class Oracle(nn.Module):
    """Knows the label of every scene of the test set, and predicts it with a given confidence."""

    def __init__(self, scenes: EmojiScenes, scale: float):
        super().__init__()
        batch = scenes.batch(range(len(scenes)))
        self.known = {image.numpy().tobytes(): label for image, label in zip(batch.images, batch.labels, strict=True)}
        self.scale = scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(images), 100)
        for row, image in zip(logits, images, strict=True):
            row[self.known[image.numpy().tobytes()]] = self.scale
        return logits


def test_answers_come_in_the_order_of_the_scenes() -> None:
    scenes = EmojiScenes(300, measuring.TESTING, objects=2)
    logits, labels, artists = measuring.answers(Oracle(scenes, 5.0), scenes)
    batch = scenes.batch(range(300))
    assert torch.equal(labels, batch.labels)
    assert torch.equal(artists, batch.artists)
    assert measuring.both_named(logits, labels).all()


def test_calibration_error_is_the_slow_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(200, 7, generator=generator)
    labels = torch.randint(0, 7, (200,), generator=generator)
    expected = 0.0
    confidence, answer = logits.softmax(-1).max(-1)
    for n in range(15):
        inside = [i for i in range(200) if n / 15 <= confidence[i] < (n + 1) / 15]
        if inside:
            accuracy = sum(bool(answer[i] == labels[i]) for i in inside) / len(inside)
            mean_confidence = sum(float(confidence[i]) for i in inside) / len(inside)
            expected += len(inside) / 200 * abs(accuracy - mean_confidence)
    assert measuring.calibration_error(logits, labels) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_that_was_applied_is_found(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    found = measuring.best_temperature(logits * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.06)


def test_a_background_that_decides_is_detected() -> None:
    """A model that reads only the mean colour is right about the group if the background has the group's colours."""

    class ByColour(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            tones = torch.tensor([[0.30, 0.58, 0.28], [0.85, 0.55, 0.25], [0.35, 0.60, 0.88], [0.60, 0.35, 0.70]])
            groups = emoji_groups()
            nearest = torch.cdist(images.mean((-1, -2)) / 2 + 0.5, tones).argmin(-1)
            by_group = torch.tensor([[float(one.group == group) for one in EmojiScenes.taxonomy] for group in groups])
            return by_group[nearest]

    measured = measuring.measure_backgrounds(ByColour(), 200)
    assert measured["group_right_with_object_hidden"] > 0.6
    assert measured["top1_on_another_groups_colours"] < 0.02
    assert measured["group_right_by_chance"] == pytest.approx(
        sum((sum(one.group == group for one in EmojiScenes.taxonomy) / 100) ** 2 for group in emoji_groups()), abs=1e-4
    )
