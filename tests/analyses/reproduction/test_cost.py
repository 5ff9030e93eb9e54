"""The expected cost grows with the dataset, and reads as a sentence."""

import pytest

from analyses.data import EmojiScenes
from analyses.reproduction import Cost, cost, measure_cost
from hooked_vit import HookedViT


def test_one_batch_is_scaled_to_the_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 3.0, 10.0, 14.0])
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    limits = []
    monkeypatch.setattr(cost, "sweep", lambda *args, limit, **options: limits.append(limit))
    found = measure_cost(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(20, 0), [[], []], batch_size=4)
    assert limits == [4, 4]
    assert (found.n_images, found.seconds) == (20, (3 + 4) * 20 / 4)


def test_a_small_dataset_is_its_own_batch() -> None:
    found = measure_cost(HookedViT.from_pretrained("emoji-vit"), EmojiScenes(2, 0), [[]], batch_size=32)
    assert found.n_images == 2
    assert found.seconds > 0


def test_text() -> None:
    assert str(Cost(4550, 5400.0, 2_340_000_000)) == "4,550 images, about 90 min, 2.3 GB of memory"
    assert str(Cost(8, 8000.0, 0)) == "8 images, about 2.2 h"
