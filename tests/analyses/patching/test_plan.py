"""The mask of each cell against its entries, written out."""

import itertools

import pytest
import torch

from analyses.patching.plan import plan_patches
from hooked_vit import HookedViTConfig

CFG = HookedViTConfig(2, 12, 3, 5, 7, (16, 24), (8, 8))
SHAPES = {"resid_pre": (2, 7, 12), "z": (2, 7, 3, 4), "pattern": (2, 3, 7, 7), "post": (2, 7, 5)}


@pytest.mark.parametrize(
    ("stream", "choices", "entries"),
    [
        ("resid_pre", {"tokens": [1, 4]}, [(slice(None), 1), (slice(None), 4)]),
        ("z", {"heads": [0, 2]}, [(slice(None), slice(None), 0), (slice(None), slice(None), 2)]),
        ("z", {"heads": [1], "tokens": [0, 6]}, [(slice(None), 0, 1), (slice(None), 6, 1)]),
        ("pattern", {"heads": [2], "tokens": [0, 3]}, [(slice(None), 2, 0), (slice(None), 2, 3)]),
        ("post", {"neurons": [4], "tokens": "cls"}, [(slice(None), 0, 4)]),
    ],
)
def test_masks_of_cells(stream: str, choices: dict, entries: list[tuple]) -> None:
    plan = plan_patches(CFG, stream, n_tokens=7, n_images=2, **choices)
    assert plan.n_cells == len(entries)
    assert plan.shape == tuple(len(plan.labels[axis]) for axis in plan.axes)
    masks = plan.masks(range(plan.n_cells), slice(0, 2))
    rows = itertools.product(entries, range(2))
    for mask, (entry, image) in zip(masks, rows, strict=True):
        expected = torch.zeros(SHAPES[stream], dtype=torch.bool)
        expected[entry] = True
        assert torch.equal(mask.expand(SHAPES[stream][1:]), expected[image])


def test_a_group_may_differ_between_images() -> None:
    members = torch.rand(2, 7) < 0.5
    plan = plan_patches(CFG, "mlp_out", n_tokens=7, n_images=2, groups={"a": members, "b": [0]})
    masks = plan.masks(range(2), slice(1, 2))
    assert torch.equal(masks[0, :, 0], members[1])
    assert masks[1, :, 0].tolist() == [True] + [False] * 6
