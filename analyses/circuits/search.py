"""From scores to circuits: the largest edges, growing from the logits, and pruning by measured effects."""

import heapq
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.circuits.circuit import Circuit, checked_groups, corrupt_recording, run_circuits
from analyses.circuits.graph import circuit_graph
from analyses.circuits.groups import Groups
from analyses.circuits.recording import Recording
from analyses.circuits.scores import EdgeScores
from analyses.patching.metrics import Metric, checked_metric, metric_values
from hooked_vit import HookedViT

__all__ = ["Ranking", "greedy_circuit", "pruned_circuit", "top_circuit"]

Ranking = Literal["absolute", "helpful"]


def ranked(scores: EdgeScores, ranking: Ranking) -> Float[Tensor, "sender reader"]:
    """Edges by importance, minus infinity where there is none.

    `absolute`: whatever the sign. `helpful`: edges first whose corruption moves the metric towards the corrupt run.

    Raises:
        ValueError: If there is no such ranking.
    """
    if ranking not in ("absolute", "helpful"):
        raise ValueError(f"expected ranking 'absolute' or 'helpful', got {ranking!r}")
    mean = scores.mean.cpu().double()
    if ranking == "helpful":
        mean = mean * torch.sign((scores.corrupt - scores.clean).mean()).cpu().double()
    else:
        mean = mean.abs()
    return mean.masked_fill(~scores.graph.valid, -torch.inf)


def top_circuit(scores: EdgeScores, n: int, ranking: Ranking = "absolute", *, fill: bool = False) -> Circuit:
    """The `n` edges with the largest scores, less those on no path from the embedding to the logits.

    Args:
        scores: The scores.
        n: Number of edges.
        ranking: `"absolute"`, or `"helpful"` for signed scores.
        fill: Take further edges until `n` are connected, as far as there are enough.

    Raises:
        ValueError: If `n` is not from 0 to the number of edges.

    >>> from analyses.circuits import CircuitGraph
    >>> graph, scores = CircuitGraph(1, 2), torch.zeros(4, 8)
    >>> scores[0, graph.readers.index(("v", 0, 1))] = scores[2, graph.readers.index(("logits",))] = -3.0
    >>> top_circuit(EdgeScores(graph, "exact", scores, torch.tensor(5.0), torch.tensor(2.0)), 2).edges
    [(('embed',), ('v', 0, 1)), (('head', 0, 1), ('logits',))]
    """
    graph, order = scores.graph, ranked(scores, ranking).flatten().argsort(descending=True, stable=True)
    if not 0 <= n <= graph.n_edges:
        raise ValueError(f"expected a number of edges from 0 to {graph.n_edges}, got {n}")

    def circuit(n_taken: int) -> Circuit:
        mask = torch.zeros(graph.n_senders * graph.n_readers, dtype=torch.bool)
        mask[order[:n_taken]] = True
        return Circuit(graph, mask.reshape(graph.n_senders, graph.n_readers)).connected()

    if not fill:
        return circuit(n)
    # more edges never leave fewer connected
    low, high = n, graph.n_edges
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if circuit(middle).n_edges <= n else (low, middle - 1)
    return circuit(low)


def greedy_circuit(scores: EdgeScores, n: int, ranking: Ranking = "absolute") -> Circuit:
    """Grow a circuit from the logits: of all edges into what it reaches already, add the largest, up to `n` times.

    As the greedy search of Hanna et al. (2024); at the end, edges on no path from the embedding are left out.

    Args:
        scores: The scores.
        n: Number of edges to add.
        ranking: As for `top_circuit`.

    Raises:
        ValueError: If `n` is not from 0 to the number of edges.

    >>> from analyses.circuits import CircuitGraph
    >>> graph = CircuitGraph(1, 2)
    >>> scores = EdgeScores(graph, "exact", torch.rand(4, 8) * graph.valid, torch.tensor(5.0), torch.tensor(2.0))
    >>> greedy_circuit(scores, 6).is_connected
    True
    """
    graph, value = scores.graph, ranked(scores, ranking)
    if not 0 <= n <= graph.n_edges:
        raise ValueError(f"expected a number of edges from 0 to {graph.n_edges}, got {n}")
    mask = torch.zeros_like(graph.valid)
    candidates: list[tuple[float, int, int]] = []
    reached: set[tuple[int, int]] = set()

    def offer(readers: list[int]) -> None:
        for reader in readers:
            for sender in graph.valid[:, reader].nonzero()[:, 0].tolist():
                heapq.heappush(candidates, (-float(value[sender, reader]), sender, reader))

    offered: set[int] = set(range(graph.n_readers)[graph.logits_slice])
    offer(sorted(offered))
    while candidates and int(mask.sum()) < n:
        _, sender, reader = heapq.heappop(candidates)
        mask[sender, reader] = True
        node = sender, int(graph.read_group[reader])
        if node not in reached:
            reached.add(node)
            inputs = graph.belongs[sender] & (graph.written_group == node[1])
            new = [index for index in inputs.nonzero()[:, 0].tolist() if index not in offered]
            offered |= set(new)
            offer(new)
    return Circuit(graph, mask).connected()


@torch.no_grad()
def pruned_circuit(
    model: HookedViT,
    clean: Float[Tensor, "batch channel height width"],
    corrupt: Float[Tensor, "batch channel height width"] | Recording,
    metric: Metric,
    threshold: float,
    *,
    start: Circuit | None = None,
    scores: EdgeScores | None = None,
    groups: Groups | None = None,
    memory_limit: float | int | None = None,
) -> Circuit:
    """Remove edges whose removal moves the metric by less than a threshold, as ACDC does (Conmy et al. 2023).

    From the logits to the embedding, each edge into each part is removed in turn, and stays removed if the metric
    moves by less than `threshold` from what it was with the edge; parts that nothing reads any more are skipped.
    The metric is measured in the circuit found so far, so of two edges that can replace each other, one is kept.

    Runs go ahead in batches, as if all were removed: results are those of one run at a time.

    Args:
        model: The model, without hooks.
        clean: As for `edge_attribution`.
        corrupt: As above.
        metric: As above; it needs no gradient.
        threshold: In the metric's unit.
        start: The circuit to prune; the whole graph by default.
        scores: Scores that set the order in which edges into a part are tried: the smallest first.
        groups: As for `edge_attribution`.
        memory_limit: Bytes that the runs may take at a time.

    Raises:
        ValueError: If the threshold is not positive, or as `Circuit.run`.

    >>> from analyses.circuits import edge_attribution
    >>> from analyses.patching import logit_difference
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> images, metric = (torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)), logit_difference(3)
    >>> few = greedy_circuit(edge_attribution(model, *images, metric), 12)
    >>> pruned_circuit(model, *images, metric, threshold=0.5, start=few).n_edges < 12
    True
    """
    if threshold <= 0:
        raise ValueError(f"expected a threshold above 0, in the metric's unit, got {threshold}")
    graph, kept = circuit_graph(model, tuple(groups or ())), corrupt_recording(model, clean, corrupt)
    members = checked_groups(model, graph, kept, len(clean), groups)
    mask = (Circuit.whole(graph) if start is None else start).connected().mask.clone()
    order = scores.mean.abs().cpu() if scores is not None else torch.zeros(mask.shape)

    def measure(masks: Bool[Tensor, "circuit sender reader"]) -> Tensor:
        runs: list[Any] = list(run_circuits(model, graph, masks, clean, kept, members, memory_limit=memory_limit))
        return metric_values(metric, torch.cat(runs), per_image=False)

    checked_metric(metric, kept.logits.expand(len(clean), -1), per_image=False)
    now = measure(mask[None])[0]
    for reader in reversed(range(graph.n_readers)):
        if not Circuit(graph, mask).connected().mask[:, reader].any():
            mask[:, reader] = False
            continue
        tried = mask[:, reader].nonzero()[:, 0].flip(0)
        pending = tried[order[tried, reader].argsort(stable=True)].tolist()
        ahead = 4
        while pending:
            some = pending[:ahead]
            masks = mask.repeat(len(some), 1, 1)
            for i, sender in enumerate(some):
                masks[i:, sender, reader] = False
            after = measure(masks)
            before = torch.cat([now[None], after[:-1]])
            stays = ((after - before).abs() >= threshold).nonzero()[:, 0].tolist()
            n_removed = stays[0] if stays else len(some)
            if n_removed:
                mask, now = masks[n_removed - 1].clone(), after[n_removed - 1]
            # runs after an edge that stays were made without it: they are made again
            pending = pending[n_removed + bool(stays) :]
            ahead = min(2 * ahead, 32) if not stays else 4
    return Circuit(graph, mask).connected()
