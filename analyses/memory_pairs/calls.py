"""The memories that each token activates most: in a cache, or in a batch of a sweep, where one search is shared."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.analysis.base import AnalysisBatch
from analyses.memory_pairs.coefficients import Coefficients, coefficient_names, memory_coefficients
from analyses.memory_pairs.lookup import MemoryTables, TableStore
from analyses.value_vectors.vectors import MemorySublayer, check_k, check_sublayer, n_memories
from hooked_vit import HookedViT, HookedViTConfig, ViTActivationCache

__all__ = [
    "called_in_batch",
    "called_memories",
    "memory_sources",
    "source_columns",
    "source_names",
    "tables_of_batch",
]

CHUNK_ELEMENTS = 2**28  # coefficients that are searched at a time
_DEPTH = 10  # a batch is searched for this many memories, for all analyses that need as many or fewer

Source = tuple[MemorySublayer, Coefficients]
"""A sub-layer and the kind of its coefficients."""


def called_memories(
    model: HookedViT, cache: ViTActivationCache, sublayer: MemorySublayer, k: int, coefficients: Coefficients
) -> Iterator[Int[Tensor, "batch token k"]]:
    """For each block in turn, the memories with the k largest coefficients at each token, largest first.

    Raises:
        ValueError: If the cache lacks a hook point, or there are fewer memories than k.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> _, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64))
    >>> [memories.shape for memories in called_memories(model, cache, "mlp", 5, "pre")][:2]
    [torch.Size([2, 65, 5]), torch.Size([2, 65, 5])]
    """
    for layer in range(model.cfg.n_layers):
        layer_coefficients = memory_coefficients(model, cache, layer, sublayer, coefficients)
        check_k(k, layer_coefficients.shape[-1], "memories")
        yield _largest(layer_coefficients.to(model.cfg.device), k)


def _largest(coefficients: Float[Tensor, "batch token memory"], k: int) -> Int[Tensor, "batch token k"]:
    n_images = max(1, CHUNK_ELEMENTS // max(1, coefficients[0].numel()))
    return torch.cat([part.topk(k, dim=-1).indices for part in coefficients.split(n_images)])


def memory_sources(sublayers: Sequence[MemorySublayer], coefficients: Sequence[Coefficients]) -> list[Source]:
    """The sub-layers with each kind of their coefficients: attention has only one kind.

    Raises:
        ValueError: If nothing is given, or there is no such sub-layer.

    >>> memory_sources(["mlp", "attn"], ["pre", "post"])
    [('mlp', 'pre'), ('mlp', 'post'), ('attn', 'post')]
    """
    for sublayer in sublayers:
        check_sublayer(sublayer)
    if not sublayers or not coefficients:
        raise ValueError(f"expected sublayers and coefficients, got {list(sublayers)} and {list(coefficients)}")
    return [(sublayer, kind) for sublayer in sublayers for kind in (coefficients if sublayer == "mlp" else ("post",))]


def source_names(cfg: HookedViTConfig, sources: Sequence[Source]) -> list[str]:
    """The hook points of the coefficients of all sources."""
    return [name for sublayer, kind in sources for name in coefficient_names(cfg, sublayer, kind)]


def source_columns(source: Source) -> dict[str, Any]:
    """The columns of a source in a table: `stream` is its output; attention's coefficients are called `z`."""
    sublayer, kind = source
    return {"stream": f"{sublayer}_out", "coefficients": "z" if sublayer == "attn" else kind}


def called_in_batch(batch: AnalysisBatch, source: Source, k: int) -> list[Int[Tensor, "batch token k"]]:
    """`called_memories` of each block, from one search that all analyses of the batch share.

    >>> from hooked_vit import HookedViT
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> names = source_names(model.cfg, [("mlp", "pre")])
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=names)
    >>> batch = AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2))
    >>> called_in_batch(batch, ("mlp", "pre"), k=5)[0].shape
    torch.Size([2, 65, 5])
    """
    sublayer, kind = source
    depth = max(k, min(_DEPTH, n_memories(batch.model.cfg, sublayer)))
    called = batch.once(
        ("called memories", source, depth),
        lambda: list(called_memories(batch.model, batch.cache, sublayer, depth, kind)),
    )
    return [memories[..., :k] for memories in called]


def tables_of_batch(
    batch: AnalysisBatch, store: TableStore, sublayer: MemorySublayer, k: int = 5, layer_scale: bool = False
) -> MemoryTables:
    """The model's tables: shared with other analyses of the sweep, kept from earlier batches, or computed now."""
    return batch.once(
        ("memory tables", sublayer, k, layer_scale), lambda: store.tables(batch.model, sublayer, k, layer_scale)
    )
