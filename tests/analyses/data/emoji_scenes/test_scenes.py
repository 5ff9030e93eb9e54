"""Emoji Scenes as a dataset: the same items everywhere, iteration, and errors for invalid options."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from analyses.data.dataset import LabelledImages
from analyses.data.emoji_scenes.scenes import EmojiScenes

SCENES = EmojiScenes(1000, seed=6, objects="mixed")


def test_an_item_is_image_label_and_mask() -> None:
    image, label, mask = SCENES[7]
    assert image.shape == (3, 64, 64)
    assert image.dtype == torch.float32
    assert type(label) is int
    assert mask.shape == (64, 64)
    assert mask.dtype == torch.bool
    assert isinstance(SCENES, LabelledImages)


def test_items_are_the_same_to_the_bit_in_any_batch_and_order() -> None:
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:24]
    large = SCENES.batch(order)
    for size in (1, 7, 24):
        for start in range(0, 24, size):
            small = SCENES.batch(order[start : start + size])
            assert torch.equal(small.pixels, large.pixels[start : start + size])
            assert torch.equal(small.images, large.images[start : start + size])
            assert torch.equal(small.masks, large.masks[start : start + size])
            assert torch.equal(small.boxes, large.boxes[start : start + size])
    for row in (0, 21):
        image, label, mask = SCENES[int(order[row])]
        assert torch.equal(image, large.images[row])
        assert label == large.labels[row, 0]
        assert torch.equal(mask, large.masks[row, 0])


def test_items_are_the_same_in_other_processes_and_threads() -> None:
    here = SCENES.batch(range(40))
    loader = DataLoader(SCENES, batch_size=20, num_workers=2)
    there = [batch for batch, _ in zip(loader, range(2), strict=False)]
    assert torch.equal(torch.cat([images for images, _, _ in there]), here.images)
    assert torch.equal(torch.cat([labels for _, labels, _ in there]), here.labels[:, 0])
    assert torch.equal(torch.cat([masks for _, _, masks in there]), here.masks[:, 0])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(SCENES.batch(range(40)).pixels, here.pixels)
    finally:
        torch.set_num_threads(threads)
    copied = pickle.loads(pickle.dumps(SCENES.occlude(0.5)))
    assert torch.equal(copied.batch(range(9)).pixels, SCENES.occlude(0.5).batch(range(9)).pixels)


def test_a_longer_dataset_begins_with_the_same_scenes() -> None:
    pixels = SCENES.batch(range(10)).pixels
    assert torch.equal(EmojiScenes(10**9, seed=6, objects="mixed").batch(range(10)).pixels, pixels)
    other = EmojiScenes(1000, seed=7, objects="mixed").batch(range(10))
    assert (other.pixels != pixels).flatten(1).any(dim=1).all()
    assert len(SCENES) == 1000


def test_indices_from_the_end_and_beyond_it() -> None:
    assert torch.equal(SCENES[-1][0], SCENES[999][0])
    assert len(list(EmojiScenes(3, seed=0))) == 3
    assert len(SCENES.batch([])) == 0
    for index in (1000, -1001):
        with pytest.raises(IndexError, match=f"expected scenes from 0 to 999, got {index}: the dataset has n=1000"):
            SCENES[index]


def test_objects_and_artists_are_as_configured() -> None:
    assert EmojiScenes(9, seed=0).batch([0, 1]).labels.shape == (2, 1)
    two = EmojiScenes(50, seed=0, objects=2, artists=["fluent-3d", "noto"]).batch(range(50))
    assert (two.labels >= 0).all()
    assert set(two.artists.flatten().tolist()) == {0, 2}
    assert two.masks.flatten(2).any(dim=2).all()


def test_the_taxonomy() -> None:
    assert EmojiScenes.class_names[:3] == ("monkey", "dog", "cat")
    assert EmojiScenes.taxonomy[0].group == "Animals & Nature"
    assert EmojiScenes.taxonomy[0].subgroup == "animal-mammal"


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "expected at least one scene, got n=0: pass how many scenes the dataset has"),
        ({"image_size": 60}, "image_size that patches of 8 pixels divide, got 60: pass 64, for instance"),
        ({"image_size": 0}, "image_size that patches of 8 pixels divide, got 0: pass 8, for instance"),
        ({"objects": 3}, "expected objects=1, 2 or 'mixed', got 3: pass one of the three"),
        ({"objects": "two"}, "expected objects=1, 2 or 'mixed', got 'two'"),
        ({"artists": ["noto", "twemojy"]}, "no artist is called 'twemojy': did you mean 'twemoji'. known are noto, tw"),
        ({"artists": []}, "expected at least one artist, got none: pass any of noto, twemoji, fluent-3d"),
        ({"classes": [3, 100]}, "expected a class from 0 to 99, got 100"),
        ({"classes": ["lyon"]}, "no class is called 'lyon'.*did you mean 'lion'"),
        ({"classes": ["fox"], "objects": 2}, "expected at least 2 different classes for objects=2, got 1"),
        ({"classes": []}, "expected at least 1 different classes for objects=1, got 0"),
        ({"scale": (0.9, 0.4)}, r"expected scale=\(low, high\) with 0 < low <= high <= 1, got \(0.9, 0.4\)"),
        ({"background_strength": 1.1}, "expected a background_strength from 0 to 1, got 1.1"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmojiScenes(**{"n": 10, "seed": 0, **options})


@pytest.mark.usefixtures("bad_input")
def test_a_single_index_is_not_a_batch() -> None:
    with pytest.raises(ValueError, match=r"expected a sequence of indices, got 3: for one scene use scenes.scene"):
        SCENES.batch(3)
