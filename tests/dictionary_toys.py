"""Dictionaries and images for the small models of `conftest`."""

import functools

import torch
from conftest import ported
from torch import Tensor

from analyses.dictionaries import Dictionary, DictionaryConfig
from hooked_vit import HookedViT
from hooked_vit.splicing import activation_width

KINDS = ["cls", "gap_registers_layerscale", "rotary"]
"""Models that differ in what these analyses meet: readout, registers, LayerScale, rotary positions."""


def toy_dictionary(
    model: HookedViT, reads: str, writes: str | None = None, tokens: str = "any", d_dict: int = 37, k: int = 5
) -> Dictionary:
    """A dictionary of random weights, with all parts that a dictionary may have."""
    [reads], [writes] = model.hook_names([reads]), model.hook_names([writes or reads])
    config = DictionaryConfig(
        "topk", activation_width(reads, model), activation_width(writes, model), d_dict, reads, writes, tokens, k,
        normalisation="mean_and_scale",
    )  # fmt: skip
    dictionary, generator = Dictionary(config), torch.Generator().manual_seed(3)
    for name, tensor in dictionary.state_dict().items():
        drawn = 0.5 * torch.randn(tensor.shape, generator=generator)
        tensor.copy_(drawn.abs() + 0.7 if "scale" in name else drawn)
    return dictionary.requires_grad_(False).eval()


@functools.cache
def items(n: int = 6) -> list[tuple[Tensor, int]]:
    """Images of seven classes."""
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(3, 32, 24, generator=generator), index % 7) for index in range(n)]


def toy(kind: str) -> HookedViT:
    """One of the small models."""
    return ported(kind)
