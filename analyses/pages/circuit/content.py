"""The numbers of a circuit page: edges by rank, circuits of growing size, their faithfulness, and maps of edges."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.circuits.attribution import Method, edge_maps
from analyses.circuits.quality import circuit_curve
from analyses.circuits.scores import EdgeScores
from analyses.patching.metrics import LogitMetric
from hooked_vit import HookedViT

__all__ = ["circuit_data", "sizes_of"]

_LEVELS = 100  # steps of a map, on either side of zero


def sizes_of(n_edges: int, largest: int) -> list[int]:
    """Numbers of edges on the page's slider: every number up to ten, then about a third more each time.

    >>> sizes_of(2000, 20)
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 17, 20]
    """
    sizes, last = list(range(1, 11)), min(n_edges, largest)
    while sizes[-1] < last:
        sizes.append(max(sizes[-1] + 1, int(sizes[-1] * 1.35)))
    return [*(size for size in sizes if size < last), last]


def circuit_data(
    model: HookedViT,
    clean: Float[Tensor, "1 channel height width"],
    corrupt: Float[Tensor, "1 channel height width"],
    metric: LogitMetric,
    scores: EdgeScores,
    n_edges: int,
    steps: int,
) -> dict[str, Any]:
    """Everything that the page shows, as JSON.

    `edges` are all edges of any circuit, the largest first; `circuits` are lists of positions in it. A map is the
    edge's score at each token, in hundredths of its largest.
    """
    graph = scores.graph
    sizes = sizes_of(graph.n_edges, n_edges)
    curve = circuit_curve(
        model, clean, corrupt, metric, scores, shares=[size / graph.n_edges for size in sizes], search="greedy",
        n_random=1,
    )  # fmt: skip
    union = torch.stack([circuit.mask for circuit in curve.circuits]).any(dim=0)
    method = cast(Method, scores.method)
    maps = edge_maps(model, clean, corrupt, metric, union, method, steps=steps, rule="midpoint")[:, 0].cpu()
    at = union.nonzero()
    order = scores.mean.cpu()[union].abs().argsort(descending=True)
    position = torch.full(union.shape, -1, dtype=torch.long)
    position[tuple(at[order].T)] = torch.arange(len(order))
    edges = []
    for index in order.tolist():
        sender, reader = at[index].tolist()
        largest = float(maps[index].abs().max()) or 1.0
        edges.append({
            "sender": list(graph.senders[sender]),
            "reader": list(graph.readers[reader]),
            "to": [list(graph.senders[part]) for part in graph.parts_of(reader)] or [["logits"]],
            "score": float(f"{scores.mean[sender, reader]:.6g}"),
            "largest": float(f"{largest:.6g}"),
            "map": (maps[index] / largest * _LEVELS).round().int().tolist(),
        })  # fmt: skip
    circuits = [
        {"asked": size, "edges": position[circuit.mask].sort().values.tolist(), "kept": _rounded(curve.faithfulness[i]),
         "left": _rounded(curve.complement[i]), "random": _rounded(curve.random[i])}
        for i, (size, circuit) in enumerate(zip(sizes, curve.circuits, strict=True))
        if circuit.n_edges or size == sizes[-1]
    ]  # fmt: skip
    layout = model.cfg.token_layout_at(*clean.shape[-2:])
    return {
        "n_layers": graph.n_layers, "n_heads": graph.n_heads, "n_all_edges": graph.n_edges, "grid": list(layout.grid),
        "prefix": list(layout.token_types[: layout.n_prefix]), "edges": edges, "circuits": circuits, "levels": _LEVELS,
        "clean": round(curve.clean, 4), "corrupt": round(curve.corrupt, 4), "method": scores.method,
        "start": _start([circuit["kept"] for circuit in circuits]),
    }  # fmt: skip


def _rounded(value: Tensor) -> float:
    return round(float(value), 4)


def _start(kept: Sequence[float]) -> int:
    """The smallest circuit that keeps 80 percent, or else the last."""
    return next((i for i, share in enumerate(kept) if share >= 0.8), len(kept) - 1)
