"""What analyses of memory pairs ask of a sweep's batch, each computed once for all of them."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from analyses.analysis.base import AnalysisBatch
from analyses.memory_pairs.coefficients import Coefficients, coefficient_names
from analyses.memory_pairs.lookup import MemoryTables, TableStore
from analyses.memory_pairs.calls import called_memories
from analyses.value_vectors.vectors import MemorySublayer, check_sublayer
from hooked_vit import HookedViTConfig

__all__ = ["called_in_batch", "memory_sources", "source_columns", "source_names", "tables_of_batch"]

# As many memories are searched for at once, since a search for a few more costs nothing: whoever asks for fewer
# takes the first of them.
_DEPTH = 10

Source = tuple[MemorySublayer, Coefficients]


def memory_sources(sublayers: Sequence[MemorySublayer], coefficients: Sequence[Coefficients]) -> list[Source]:
    """Sub-layers with each kind of coefficient that they have: attention has one.

    Raises:
        ValueError: If there is none, or no such sub-layer.

    >>> memory_sources(["mlp", "attn"], ["pre", "post"])
    [('mlp', 'pre'), ('mlp', 'post'), ('attn', 'post')]
    """
    for sublayer in sublayers:
        check_sublayer(sublayer)
    if not sublayers or not coefficients:
        raise ValueError(f"expected sublayers and coefficients, got {list(sublayers)} and {list(coefficients)}")
    return [(one, kind) for one in sublayers for kind in (coefficients if one == "mlp" else ("post",))]


def source_names(cfg: HookedViTConfig, sources: Sequence[Source]) -> list[str]:
    """The hook points that the coefficients of all sources are read from."""
    return [name for sublayer, kind in sources for name in coefficient_names(cfg, sublayer, kind)]


def source_columns(source: Source) -> dict[str, Any]:
    """A source in a table: `stream` is what the sub-layer writes, `coefficients` of attention are called `z`."""
    sublayer, kind = source
    return {"stream": f"{sublayer}_out", "coefficients": "z" if sublayer == "attn" else kind}


def called_in_batch(batch: AnalysisBatch, source: Source, k: int) -> list[Int[Tensor, "batch token k"]]:
    """`called_memories` of each block.

    >>> from hooked_vit import HookedViT
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> names = source_names(model.cfg, [("mlp", "pre")])
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=names)
    >>> batch = AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2))
    >>> called_in_batch(batch, ("mlp", "pre"), k=5)[0].shape
    torch.Size([2, 65, 5])
    """
    cfg, (sublayer, kind) = batch.model.cfg, source
    n_memories = cfg.d_mlp if sublayer == "mlp" else cfg.n_heads * cfg.d_head
    depth = max(k, min(_DEPTH, n_memories))
    called = batch.once(
        ("called memories", source, depth),
        lambda: list(called_memories(batch.model, batch.cache, sublayer, depth, kind)),
    )
    return [memories[..., :k] for memories in called]


def tables_of_batch(
    batch: AnalysisBatch, store: TableStore, sublayer: MemorySublayer, k: int = 5, layer_scale: bool = False
) -> MemoryTables:
    """The model's tables: from another analysis of the sweep, from the batches before, or made now."""
    return batch.once(
        ("memory tables", sublayer, k, layer_scale), lambda: store.tables(batch.model, sublayer, k, layer_scale)
    )
