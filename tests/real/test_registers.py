"""Outliers and registers on DINOv2-small: it has no outliers, and registers do what zero tokens do in timm's module."""

from pathlib import Path

import pytest
import torch
from real_dinov2 import load_dinov2, photographs
from real_models import pictures

from analyses.outliers import outlier_names, outlier_scores, register_neurons
from hooked_vit import HookedViT
from hooked_vit.interventions import block_attention, intervene, move_neurons


@torch.no_grad()
@pytest.mark.parametrize("size", [224, 448])
def test_the_small_model_has_no_outliers(weights: Path, size: int) -> None:
    # Darcet et al. find them in DINOv2 from ViT-L on
    model = load_dinov2(weights, size)
    _, cache = model.run_with_cache(pictures(model, *photographs()), names_filter=outlier_names(model.cfg))
    ratios = outlier_scores(model, cache).norm_ratio[:, :, model.token_layout.patches]
    assert 1.5 < float(ratios.max()) < 2.5
    nothing = register_neurons(model, [pictures(model, "cat")], layer=10)
    with pytest.raises(ValueError, match="no patch of 1 images is an outlier after block 10"):
        nothing.top(5)


@torch.no_grad()
def test_registers_and_moved_neurons(model: HookedViT) -> None:
    more, images = model.with_registers(), pictures(model, "cat", "rocket")
    before = model(images)
    with intervene(more, block_attention(more, [("any", "register")])):
        torch.testing.assert_close(more(images), before, rtol=1e-4, atol=1e-4)
    found = register_neurons(model, [images], layer=8, threshold=1.2)
    with intervene(more, move_neurons(more, found.top(20))):
        _, cache = more.run_with_cache(images, names_filter=outlier_names(more.cfg))
    moved = outlier_scores(more, cache).norm_ratio[8]
    _, cache = model.run_with_cache(images, names_filter=outlier_names(model.cfg))
    as_it_is = outlier_scores(model, cache).norm_ratio[8, :, model.token_layout.patches].amax(dim=1)
    largest = moved[:, more.token_layout.patches].amax(dim=1)
    # even without outliers, the neurons that write to the largest patches write to the register instead
    assert (largest < as_it_is).all()
    assert (moved[:, more.token_layout.registers.start] > largest).all()
