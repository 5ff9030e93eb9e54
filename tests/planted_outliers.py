"""Models in which known neurons make outlier tokens of marked patches: ground truth for the search of neurons."""

from dataclasses import dataclass

import torch
from conftest import ported
from torch import Tensor

from hooked_vit import HookedViT

LAYER, NEURONS = 1, (5, 17)


@dataclass(frozen=True)
class PlantedOutliers:
    """A model, images that each have one marked patch, and the token of that patch."""

    model: HookedViT
    images: Tensor  # [batch channel height width]
    marked: Tensor  # [batch]


@torch.no_grad()
def planted_outliers(kind: str, n_images: int = 5) -> PlantedOutliers:
    """Neurons 5 and 17 of block 1 fire at the marked patches only, and write a large vector there.

    In a gated MLP they fire with negative activations.
    """
    source = ported(kind)
    model = source.with_weights({name: tensor.clone() for name, tensor in source._tensors().items()})
    generator = torch.Generator().manual_seed(11)
    images = torch.randn(n_images, 3, 32, 24, generator=generator)
    marker = torch.randn(3, 8, 8, generator=generator)
    patches = torch.randperm(12, generator=generator)[:n_images]
    for image, patch in zip(images, patches.tolist(), strict=True):
        row, column = divmod(patch, 3)
        image[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = marker
    marked = model.token_layout.n_prefix + patches
    norm = f"blocks.{LAYER}.{'ln1' if model.cfg.parallel_attn_mlp else 'ln2'}.hook_normalized"
    _, cache = model.run_with_cache(images, names_filter=norm)
    is_marked = torch.zeros(cache[norm].shape[:2], dtype=torch.bool)
    is_marked[torch.arange(n_images), marked] = True
    read, others = cache[norm][is_marked], cache[norm][~is_marked]
    direction = read.mean(0) - others.mean(0)
    low, high = (others @ direction).max(), (read @ direction).min()
    assert high > low, "the marked patches cannot be told apart"
    key, bias = 20 * direction / (high - low), -20 * (high + low) / 2 / (high - low)
    mlp = model.blocks[LAYER].mlp
    for neuron in NEURONS:
        if model.cfg.gated_mlp:
            mlp.W_gate[:, neuron], mlp.b_gate[neuron] = key, bias
            mlp.W_in[:, neuron], mlp.b_in[neuron] = 0, -1
        else:
            mlp.W_in[:, neuron], mlp.b_in[neuron] = key, bias
        mlp.W_out[neuron] = 20 * torch.randn(24, generator=generator)
    return PlantedOutliers(model, images, marked)
