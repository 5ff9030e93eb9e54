"""Deletion against painting over one patch at a time; insertion is deletion in reverse order."""

import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.faithfulness.pixels import deletion_curve, insertion_curve

LABELS = torch.tensor([5, 0])
ORDER = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(seed)) for seed in range(2)])


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_matches_painting_one_patch_at_a_time(fill: str, images: Tensor) -> None:
    model = ported("cls")
    curve = deletion_curve(model, images, LABELS, ORDER, [0, 5, 12], fill=fill)
    torch.testing.assert_close(curve.probability[0], model(images).softmax(-1).gather(1, LABELS[:, None])[:, 0])
    if fill == "mean":
        painted = images.clone()
        for image in range(2):
            for patch in ORDER[image, :5].tolist():
                row, column = divmod(patch, 3)
                painted[image, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
        torch.testing.assert_close(curve.probability[1], model(painted).softmax(-1).gather(1, LABELS[:, None])[:, 0])
    inserted = insertion_curve(model, images, LABELS, ORDER.flip(1), [0, 5, 12], fill=fill)
    assert torch.equal(inserted.probability, curve.probability)
    assert inserted.removal.endswith("uncovered in order")


@pytest.mark.usefixtures("bad_input")
def test_errors(images: Tensor) -> None:
    with pytest.raises(ValueError, match="'mean' or 'blur', got 'black'"):
        deletion_curve(ported("cls"), images, LABELS, ORDER, fill="black")
