"""Exact scores of edges, by path patching: one run for each edge, in which it alone carries its corrupt value."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from analyses.circuits.circuit import checked_groups, corrupt_recording, run_circuits
from analyses.circuits.graph import Edge, circuit_graph
from analyses.circuits.groups import Groups
from analyses.circuits.recording import Recording
from analyses.circuits.scores import EdgeScores
from analyses.patching.metrics import Metric, checked_metric, metric_values
from analyses.progress import progress_bar
from hooked_vit import HookedViT

__all__ = ["edge_patching"]

_CIRCUITS = 64  # masks [sender reader] that are made at a time


@torch.no_grad()
def edge_patching(
    model: HookedViT,
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Float[Tensor, "batch channel height width"] | Recording,
    metric: Metric,
    edges: Sequence[Edge] | None = None,
    *,
    groups: Groups | None = None,
    per_image: bool = False,
    memory_limit: float | int | None = None,
    progress: bool | None = False,
) -> EdgeScores:
    """Measure how far each edge moves a metric when it carries its corrupt value: what `edge_attribution` estimates.

    The reader sees the sender's corrupt write, at the tokens of the edge; everything else runs as in the clean run, and
    everything after the reader follows from what it computes (Goldowsky-Dill et al. 2023). One run for each edge and
    image, so for small models, or for some edges.

    Args:
        model: The model, without hooks.
        clean: As for `edge_attribution`, as are all arguments without a description here.
        corrupt: As above.
        metric: As above; it needs no gradient.
        edges: The edges to measure; all by default. All others score 0.
        groups: As above.
        per_image: As above.
        memory_limit: Bytes that the runs may take at a time.
        progress: Whether to show progress on standard error.

    Raises:
        ValueError: As `edge_attribution`; if an edge does not exist.

    >>> from analyses.patching import logit_difference
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> images = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    >>> edge = (("mlp", 7), ("logits",))
    >>> float(edge_patching(model, *images, logit_difference(3), [edge]).at(edge)) != 0
    True
    """
    graph, kept = circuit_graph(model, tuple(groups or ())), corrupt_recording(model, clean, corrupt)
    members = checked_groups(model, graph, kept, len(clean), groups)
    chosen = graph.valid if edges is None else graph.mask(edges)
    at = chosen.nonzero()
    ends = [checked_metric(metric, logits, per_image) for logits in (model(clean), kept.logits.expand(len(clean), -1))]
    values = ends[0].new_zeros(*ends[0].shape, graph.n_senders, graph.n_readers)
    with progress_bar(len(at), show=progress, what="edges") as advance:
        for first in range(0, len(at), _CIRCUITS):
            some = at[first : first + _CIRCUITS]
            masks = graph.valid.repeat(len(some), 1, 1)
            masks[torch.arange(len(some)), some[:, 0], some[:, 1]] = False
            runs: list[Any] = list(
                run_circuits(model, graph, masks, clean, kept, members, memory_limit=memory_limit, progress=advance)
            )
            effects = metric_values(metric, torch.cat(runs), per_image) - ends[0]
            values[..., some[:, 0], some[:, 1]] = effects.movedim(0, -1)
    return EdgeScores(graph, "exact", values, ends[0], ends[1])
