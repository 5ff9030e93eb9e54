"""`model.verify`: the largest difference, and where it arises."""

import pytest
import torch
from conftest import make_timm

from hooked_vit import HookedViT


def test_equal_models_are_bitwise_equal(images: torch.Tensor) -> None:
    module = make_timm("cls")
    result = HookedViT.from_timm(module).verify(module, images)
    assert result.bitwise
    assert result.first_difference is None
    assert str(result) == "logits are bitwise equal to timm's"


def test_a_changed_weight_is_located_in_its_block(images: torch.Tensor) -> None:
    module = make_timm("cls")
    model = HookedViT.from_timm(module)
    with torch.no_grad():
        model.blocks[1].mlp.W_out[3] += 0.5
    result = model.verify(module, images)
    difference = (model(images) - module(images)).abs()
    assert result.first_difference == "blocks.1"
    assert result.stages["blocks.0"] == 0
    assert result.difference == difference.max()
    assert difference[result.image, result.class_index] == difference.max()
    assert result.relative == pytest.approx(float(difference.max() / module(images).abs().max()))
    assert "the streams first differ after blocks.1" in str(result)


def test_the_module_is_left_unchanged(images: torch.Tensor) -> None:
    module = make_timm("cls").train()
    module.blocks[1].eval()
    model = HookedViT.from_timm(module)
    model.verify(module, images)
    assert module.training
    assert not module.blocks[1].training
    assert module.blocks[2].training
    assert not any(part._forward_hooks for part in module.modules())


def test_another_number_of_classes_is_an_error(images: torch.Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    with pytest.raises(ValueError, match=r"the port gives \(2, 7\) logits, timm's module \(2, 5\)"):
        model.verify(make_timm("cls", num_classes=5), images)
