"""Patch labels compared with a loop over patches."""

import pytest
import torch

from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.data.patch_labels import token_labels


def slow_token_labels(mask: torch.Tensor, grid: tuple[int, int], offset: float) -> list[bool]:
    height, width = mask.shape
    labels = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            y = int((row + offset) * height / grid[0] + 1e-9)
            x = int((column + offset) * width / grid[1] + 1e-9)
            labels.append(bool(mask[y, x]))
    return labels


@pytest.mark.parametrize(("anchor", "offset"), [("corner", 0.0), ("centre", 0.5)])
@pytest.mark.parametrize(
    ("size", "grid"),
    [((30, 21), (5, 7)), ((31, 22), (5, 7)), ((3, 4), (7, 9)), ((17, 5), (17, 5)), ((224, 160), (14, 10))],
)
def test_labels_are_those_of_a_loop(size, grid, anchor, offset) -> None:
    mask = torch.rand(size, generator=torch.Generator().manual_seed(0)) < 0.4
    labels = token_labels(mask, grid, anchor)
    assert labels.tolist() == slow_token_labels(mask, grid, offset)
    assert labels.dtype == torch.bool


@pytest.mark.parametrize(("anchor", "mode"), [("corner", "nearest"), ("centre", "nearest-exact")])
def test_labels_are_torchs_nearest_resize(anchor, mode) -> None:
    masks = torch.rand(2, 6, 40, 27, generator=torch.Generator().manual_seed(1)) < 0.5
    resized = torch.nn.functional.interpolate(masks.float(), size=(5, 9), mode=mode)
    assert torch.equal(token_labels(masks, (5, 9), anchor), resized.flatten(-2).bool())


def test_any_axes_before_and_any_whole_numbers() -> None:
    masks = torch.randint(0, 3, (2, 3, 12, 8), generator=torch.Generator().manual_seed(2))
    labels = token_labels(masks, (3, 4))
    assert labels.shape == (2, 3, 12)
    assert torch.equal(labels[1, 2], token_labels(masks[1, 2] > 0, (3, 4)))
    assert torch.equal(labels, token_labels(masks.to(torch.uint8), (3, 4)))


def test_labels_of_a_scene_cover_its_object() -> None:
    batch = EmojiScenes(20, seed=0).batch(range(20))
    labels = token_labels(batch.masks[:, 0], (8, 8), anchor="centre").float()
    assert (labels.mean(1) - batch.masks[:, 0].float().mean((1, 2))).abs().max() < 0.1


@pytest.mark.usefixtures("bad_input")
def test_bad_input() -> None:
    mask = torch.ones(4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"expected a mask of shape \[... height width\], got \(4,\)"):
        token_labels(mask[0], (2, 2))
    with pytest.raises(ValueError, match=r"expected a mask of shape \[... height width\], got \(0, 4\)"):
        token_labels(mask[:0], (2, 2))
    with pytest.raises(
        ValueError, match=r"expected a mask of bool or whole numbers, got torch.float32: pass `mask > 0.5`"
    ):
        token_labels(mask.float(), (2, 2))
    with pytest.raises(ValueError, match=r"expected a grid of at least 1 × 1 patches, got \(0, 2\)"):
        token_labels(mask, (0, 2))
    with pytest.raises(ValueError, match="expected anchor 'corner' or 'centre', got 'center'"):
        token_labels(mask, (2, 2), anchor="center")
