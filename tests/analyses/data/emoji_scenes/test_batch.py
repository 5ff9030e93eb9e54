"""Batches of scenes: boxes compared with a loop, images with the pixels, a scene with its batch."""

import numpy as np
import torch
from PIL import Image

from analyses.data.emoji_scenes.scenes import EmojiScenes


def test_boxes_hold_the_masks() -> None:
    batch = EmojiScenes(100, seed=3, objects="mixed").batch(range(30))
    for masks, boxes, labels in zip(batch.masks, batch.boxes, batch.labels, strict=True):
        for mask, box, label in zip(masks, boxes, labels, strict=True):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            if label < 0:
                assert box.tolist() == [0, 0, 0, 0]
                assert rows.numel() == 0
            else:
                left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                assert box.tolist() == [left, top, right, bottom]


def test_images_are_normalised_pixels() -> None:
    batch = EmojiScenes(100, seed=3).batch(range(5))
    assert torch.equal(batch.images, (batch.pixels.float() / 255 - 0.5) / 0.5)
    assert batch.pixels.float().std() > 20


def test_a_scene_is_its_row_of_the_batch() -> None:
    scenes = EmojiScenes(100, seed=3, objects="mixed", background_strength=0.5)
    batch = scenes.batch([40, 41, 42])
    scene = batch[1]
    assert len(batch) == 3
    assert scene.index == 41
    assert scene.label == batch.labels[1, 0]
    assert torch.equal(scene.mask, batch.masks[1, 0])
    assert torch.equal(scene.image, batch.images[1])
    assert scene.background_group == batch.background_groups[1]
    assert isinstance(scene.picture, Image.Image)
    assert (np.asarray(scene.picture).transpose(2, 0, 1) == batch.pixels[1].numpy()).all()
