"""Methods run on as many images as fit into the budget, with the same maps; running out of memory says what to do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import make_timm
from torch import Tensor

from analyses.feature_importance import METHODS, memory
from analyses.feature_importance.memory import bytes_per_image, images_within, within_budget
from hooked_vit import HookedViT

CLASSES = torch.tensor([5, 1, 3])


@pytest.fixture
def model() -> HookedViT:
    return HookedViT.from_timm(make_timm("gap_registers_layerscale"))


@pytest.fixture
def three_images() -> Tensor:
    return torch.randn(3, 3, 32, 24, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("method", [name for name in METHODS if name != "random"])
def test_parts_give_the_maps_of_the_whole(
    method: str, model: HookedViT, three_images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = METHODS[method](model, three_images, CLASSES)
    monkeypatch.setattr(memory, "BUDGET", 1)
    torch.testing.assert_close(METHODS[method](model, three_images, CLASSES), whole, rtol=1e-4, atol=1e-6)


def test_no_more_images_at_once_than_fit(
    model: HookedViT, three_images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    @within_budget(gradients=True, patterns=3)
    def method(model: HookedViT, images: Tensor, classes: Tensor) -> Tensor:
        sizes.append(len(images))
        return images.flatten(1)

    per_image = bytes_per_image(model.cfg, model.cfg.n_ctx, gradients=True, patterns=3)
    for budget, expected in ((per_image, [1, 1, 1]), (2.5 * per_image, [2, 1]), (9 * per_image, [3])):
        monkeypatch.setattr(memory, "BUDGET", budget)
        sizes.clear()
        assert torch.equal(method(model, three_images, CLASSES), three_images.flatten(1))
        assert sizes == expected


def test_memory_grows_with_what_is_held(model: HookedViT) -> None:
    cfg, n = model.cfg, model.cfg.n_ctx
    plain, gradients, patterns = (
        bytes_per_image(cfg, n, **options) for options in ({}, {"gradients": True}, {"gradients": True, "patterns": 1})
    )
    assert plain < gradients < patterns
    assert patterns - gradients == cfg.n_layers * cfg.n_heads * n**2 * 4
    assert images_within(cfg, n, budget=1) == 1
    assert images_within(cfg, n, budget=5 * plain) == 5


def raising(error: RuntimeError) -> Callable[..., Any]:
    @within_budget(gradients=True)
    def relevance(model: HookedViT, images: Tensor, classes: Tensor) -> Tensor:
        raise error

    return relevance


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_running_out_of_memory_says_which_method_and_what_to_do(
    error: RuntimeError, model: HookedViT, three_images: Tensor
) -> None:
    with pytest.raises(MemoryError, match=r"^relevance ran out of memory: .* GiB for an image of 14 tokens"):
        raising(error)(model, three_images, CLASSES)
    with pytest.raises(RuntimeError, match="something else"):
        raising(RuntimeError("something else"))(model, three_images, CLASSES)
