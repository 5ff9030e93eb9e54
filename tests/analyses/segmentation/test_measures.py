"""Counts of pixels equal loops over pixels, and IoU and accuracy those of torchmetrics and scikit-learn."""

import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from analyses.segmentation import ClassPixels, count_pixels, mean_iou, patch_pixels, pixel_accuracy, segmentation_map

N_CLASSES, GRID, SIZE = 6, (3, 2), (7, 11)


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    """Segmentations and targets of four images; class 5 is never shown, class 4 never predicted, -1 is background."""
    generator = torch.Generator().manual_seed(8)
    segmentation = torch.randint(0, 5, (4, *SIZE), generator=generator)
    segmentation[segmentation == 4] = 5
    target = torch.where(torch.rand(4, *SIZE, generator=generator) < 0.4, segmentation, 0 * segmentation)
    target[:, :2] = torch.randint(-1, 5, (4, 2, 11), generator=generator)
    return segmentation, target.where(target != 5, 4)


def test_each_pixel_has_the_class_of_its_patch() -> None:
    top = torch.arange(12).reshape(2, 6)
    found = segmentation_map(top, GRID, SIZE)
    for image in range(2):
        for y in range(7):
            for x in range(11):
                assert found[image, y, x] == top[image, (y * 3 // 7) * 2 + x * 2 // 11]


def test_pixels_of_patches_are_those_of_a_loop() -> None:
    mask = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(9)) < 0.3
    inside, every = patch_pixels(mask, GRID)
    expected, counts = torch.zeros(2, 6, dtype=torch.long), torch.zeros(6, dtype=torch.long)
    for y in range(7):
        for x in range(11):
            patch = (y * 3 // 7) * 2 + x * 2 // 11
            expected[:, patch] += mask[:, y, x]
            counts[patch] += 1
    assert torch.equal(inside, expected)
    assert torch.equal(every, counts)


def test_background_left_out_is_torchmetrics(maps: tuple[Tensor, Tensor]) -> None:
    segmentation, target = maps
    pixels = count_pixels(segmentation, target, N_CLASSES, background_counts=False)
    by_class = MulticlassJaccardIndex(N_CLASSES, average="none", ignore_index=-1)(segmentation, target)
    shown = pixels.target > 0
    torch.testing.assert_close(pixels.iou[shown], by_class[shown])
    torch.testing.assert_close(mean_iou(pixels), by_class[shown].mean())
    known = target >= 0
    scores = jaccard_score(target[known], segmentation[known], labels=shown.nonzero()[:, 0].numpy(), average="macro")
    assert float(mean_iou(pixels)) == pytest.approx(scores)
    accuracy = MulticlassAccuracy(N_CLASSES, average="micro", ignore_index=-1)(segmentation, target)
    torch.testing.assert_close(pixel_accuracy(pixels), accuracy)


def test_background_counts_against_a_class(maps: tuple[Tensor, Tensor]) -> None:
    segmentation, target = maps
    pixels = count_pixels(segmentation, target, N_CLASSES)
    for c in range(N_CLASSES):
        both = ((segmentation == c) & (target == c)).sum()
        either = ((segmentation == c) | (target == c)).sum()
        torch.testing.assert_close(
            pixels.iou[c], both / either if either else torch.tensor(float("nan")), equal_nan=True
        )
    assert mean_iou(pixels) < mean_iou(count_pixels(segmentation, target, N_CLASSES, background_counts=False))


def test_counts_add_up_over_images(maps: tuple[Tensor, Tensor]) -> None:
    segmentation, target = maps
    halves = count_pixels(segmentation[:1], target[:1], 6) + count_pixels(segmentation[1:], target[1:], 6)
    whole = count_pixels(segmentation, target, 6)
    for name in ("hits", "predicted", "target"):
        assert torch.equal(getattr(halves, name), getattr(whole, name))


def test_without_any_class_there_is_no_mean() -> None:
    none = torch.zeros(3, dtype=torch.long)
    assert mean_iou(ClassPixels(none, none, none)).isnan()


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    with pytest.raises(ValueError, match=r"a class for each of 3 × 2 patches, got shape \(7,\)"):
        segmentation_map(torch.arange(7), GRID, SIZE)
    with pytest.raises(ValueError, match="of one shape"):
        count_pixels(torch.zeros(2, 3).long(), torch.zeros(3, 2).long(), 4)
