"""A mask is resized and cropped like its picture, for every kind of crop and shape."""

import numpy as np
import pytest
import torch
from conftest import make_timm
from PIL import Image

from analyses.data.masks import as_mask, mask_like
from hooked_vit import HookedViT

SIZES = [(300, 400), (400, 300), (64, 48), (90, 500), (33, 31)]


@pytest.fixture(scope="module")
def model() -> HookedViT:
    return HookedViT.from_timm(make_timm("cls"))


def blocks(height: int, width: int) -> np.ndarray:
    """A quarter, a bar and a disc: edges and corners everywhere."""
    y, x = np.mgrid[:height, :width]
    disc = (y - 0.6 * height) ** 2 + (x - 0.4 * width) ** 2 < (0.2 * min(height, width)) ** 2
    return (y < height // 3) & (x < width // 2) | (x > 0.8 * width) | disc


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_mask_equals_a_picture_of_it_after_the_transform(
    model: HookedViT, size: tuple[int, int], crop_mode: str, crop_pct: float, interpolation: str
) -> None:
    """The picture is white on the object; after the transform, object is where it is more white than black."""
    data_config = {**model.data_config, "input_size": (3, 96, 72), "crop_mode": crop_mode, "crop_pct": crop_pct,
                   "interpolation": interpolation, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # fmt: skip
    from hooked_vit.preprocessing import preprocess

    mask = blocks(*size)
    picture = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).convert("RGB")
    white = preprocess(picture, model.cfg, data_config)[0, 0]
    found = mask_like(mask, data_config)
    assert found.shape == white.shape == (96, 72)
    # where interpolation leaves no doubt, they agree; in doubt are edges alone
    sure = (white - 0.5).abs() > 0.45
    assert torch.equal(found[sure], white[sure] > 0.5)
    assert sure.float().mean() > 0.6
    assert (found == (white > 0.5)).float().mean() > 0.97
    assert found.any()
    assert not found.all()


def test_without_resizing_the_mask_is_unchanged(model: HookedViT) -> None:
    mask = torch.rand(32, 24, generator=torch.Generator().manual_seed(0)) > 0.5
    assert torch.equal(mask_like(mask, {**model.data_config, "crop_pct": 1.0}), mask)


def test_the_centre_is_cropped() -> None:
    mask = torch.zeros(100, 100, dtype=torch.bool)
    mask[10:90, 10:90] = True
    data_config = {"input_size": (3, 80, 80), "crop_pct": 0.8, "interpolation": "bilinear"}
    assert mask_like(mask, data_config).all()
    assert mask_like(~mask, data_config).sum() == 0


def test_padding_does_not_belong_to_the_object() -> None:
    data_config = {"input_size": [3, 40, 40], "crop_pct": 1.0, "crop_mode": "border", "mean": (0.9, 0.9, 0.9)}
    found = mask_like(torch.ones(20, 40, dtype=torch.bool), data_config)
    assert found[10:30].all()
    assert not found[:10].any()
    assert not found[30:].any()


@pytest.mark.parametrize(
    "mask",
    [torch.eye(3, dtype=torch.bool), torch.eye(3, dtype=torch.uint8) * 255, np.eye(3, dtype=bool),
     Image.fromarray(np.eye(3, dtype=np.uint8)), Image.fromarray(np.eye(3, dtype=bool))],
    ids=["bool", "uint8", "array", "L", "1"],
)  # fmt: skip
def test_masks_of_any_kind(mask: object) -> None:
    assert torch.equal(as_mask(mask), torch.eye(3, dtype=torch.bool))


@pytest.mark.parametrize("mask", [torch.zeros(3, 3), torch.zeros(1, 3, 3, dtype=torch.bool), Image.new("RGB", (3, 3))])
def test_other_values_are_refused(mask: object) -> None:
    with pytest.raises(ValueError, match=r"expected a mask of bool or whole numbers \[height width\], got torch"):
        as_mask(mask)
