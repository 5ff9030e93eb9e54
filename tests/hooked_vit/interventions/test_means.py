"""Means over batches are means over images."""

import pytest
import torch
from conftest import ported

from hooked_vit.interventions import mean_activations

IMAGES = torch.randn(5, 3, 32, 24, generator=torch.Generator().manual_seed(3))


def test_batches_of_unequal_size() -> None:
    model = ported("gap_registers_layerscale")
    found = mean_activations(model, [IMAGES[:3], IMAGES[3:4], IMAGES[4:]], ["z", ("mlp_out", 2)])
    with torch.no_grad():
        _, cache = model.run_with_cache(IMAGES, names_filter=["z", ("mlp_out", 2)])
    assert found.keys() == cache.cache_dict.keys()
    for name, mean in found.items():
        torch.testing.assert_close(mean, cache[name].mean(0))


def test_no_images_or_images_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one batch of images, got none"):
        mean_activations(ported("cls"), [], "z")
    larger = torch.randn(1, 3, 40, 24)
    with pytest.raises(ValueError, match=r"expected images of the same size, got 'blocks.0.hook_mlp_out' of shape"):
        mean_activations(ported("dynamic"), [IMAGES, larger], ("mlp_out", 0))
