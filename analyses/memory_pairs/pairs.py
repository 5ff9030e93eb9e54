"""Key-value agreement and compositionality of the memories that each token activates, from a cache."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from analyses.memory_pairs.calls import called_memories
from analyses.memory_pairs.coefficients import Coefficients
from analyses.memory_pairs.lookup import MemoryTables
from analyses.projection import Stream, project
from analyses.value_vectors.vectors import MemorySublayer, check_sublayer
from hooked_vit import HookedViT, ViTActivationCache

__all__ = ["compositionality", "first_match", "key_value_agreement", "output_of"]


@torch.no_grad()
def key_value_agreement(
    model: HookedViT,
    cache: ViTActivationCache,
    labels: Int[Tensor, "batch"],
    sublayer: MemorySublayer = "mlp",
    k: int = 5,
    coefficients: Coefficients = "pre",
    *,
    layer_scale: bool = False,
) -> Bool[Tensor, "layer batch token"]:
    """Key-value agreement (paper, section 5.2): whether a token activates the memories that promote its class.

    True where at least one of the k memories with the largest coefficients is among the k value vectors with the
    largest logits for the image's class. The mean over tokens is the agreement rate.

    Args:
        model: The model that the cache comes from.
        cache: A cache with the hook points of `coefficient_names`.
        labels: The class of each image.
        sublayer: `mlp` or `attn`.
        k: Number of memories per token, and of value vectors per class.
        coefficients: As for `memory_coefficients`.
        layer_scale: As for `value_vectors`: whether value vectors are scaled as when they reach the stream.

    Raises:
        ValueError: If the cache lacks a hook point, or an argument is invalid.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64))
    >>> key_value_agreement(model, cache, torch.tensor([3, 14]), "mlp").shape
    torch.Size([8, 2, 65])
    """
    check_sublayer(sublayer)
    labels = model.class_indices(labels, len(labels))
    tables = MemoryTables(model, sublayer, k, layer_scale)
    called = called_memories(model, cache, sublayer, k, coefficients)
    return torch.stack([tables.agrees(layer, memories, labels) for layer, memories in enumerate(called)])


@torch.no_grad()
def compositionality(
    model: HookedViT,
    cache: ViTActivationCache,
    sublayer: MemorySublayer = "mlp",
    k: int = 5,
    coefficients: Coefficients = "pre",
    *,
    layer_scale: bool = False,
) -> Bool[Tensor, "layer batch token"]:
    """Compositionality (paper, section 5.2): whether no activated memory alone makes a sub-layer's prediction.

    True where the top class of the sub-layer's projected output (`project` of `mlp_out` or `attn_out`) is NOT the top
    class of any of the value vectors with the k largest coefficients.

    Args:
        model: The model that the cache comes from.
        cache: With the hook points of `coefficient_names` and `mlp_out` or `attn_out`.
        sublayer: `mlp` or `attn`.
        k: Number of memories.
        coefficients: As for `memory_coefficients`.
        layer_scale: As for `key_value_agreement`.

    Raises:
        ValueError: If the cache lacks a hook point, or an argument is invalid.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64))
    >>> compositionality(model, cache, "attn").shape
    torch.Size([8, 2, 65])
    """
    check_sublayer(sublayer)
    tables = MemoryTables(model, sublayer, 1, layer_scale)
    called = called_memories(model, cache, sublayer, k, coefficients)
    outputs = project(model, cache, output_of(sublayer), k=1).top_classes[..., 0]
    matches = [first_match(tables, layer, memories, outputs[layer]) for layer, memories in enumerate(called)]
    return torch.stack(matches) == k


def first_match(
    tables: MemoryTables, layer: int, memories: Int[Tensor, "batch token n"], classes: Int[Tensor, "batch token"]
) -> Int[Tensor, "batch token"]:
    """The position of the first of a token's memories whose top class is the given one; n if there is none."""
    matches = tables.class_of_memory[layer][memories] == classes[..., None]
    n = memories.shape[-1]
    positions = torch.arange(n, device=memories.device)
    return torch.where(matches, positions, n).amin(dim=-1)


def output_of(sublayer: MemorySublayer) -> Stream:
    """The stream that a sub-layer writes."""
    return "mlp_out" if sublayer == "mlp" else "attn_out"
