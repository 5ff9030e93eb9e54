"""Random circuits of a given size, connected like those that are found: what any circuit is compared with."""

import torch
from jaxtyping import Bool
from torch import Tensor

from analyses.circuits.circuit import Circuit
from analyses.circuits.graph import CircuitGraph

__all__ = ["random_circuit"]


def random_circuit(graph: CircuitGraph, n: int, generator: torch.Generator) -> Circuit:
    """A random connected circuit of `n` edges.

    Random edges are added one after another, each with the random edges that are needed to connect it to the embedding
    and to the logits, as long as they fit. For `n` of 1, it is an edge from the embedding to the logits.

    Raises:
        ValueError: If `n` is not from 0 to the number of edges.

    >>> circuit = random_circuit(CircuitGraph(2, 3), 20, torch.Generator().manual_seed(0))
    >>> circuit.n_edges, circuit.is_connected
    (20, True)
    """
    if not 0 <= n <= graph.n_edges:
        raise ValueError(f"expected a number of edges from 0 to {graph.n_edges}, got {n}")
    mask = torch.zeros_like(graph.valid)
    if n == graph.n_edges:
        return Circuit(graph, graph.valid)
    count = 0
    all_edges = graph.valid.nonzero()
    while count < n:
        before = count
        for index in torch.randperm(len(all_edges), generator=generator).tolist():
            sender, reader = all_edges[index].tolist()
            if mask[sender, reader]:
                continue
            added = [(sender, reader), *_way_back(graph, mask, sender, reader, generator)]
            added += _way_forward(graph, mask, reader, generator)
            new = {edge for edge in added if not mask[edge]}
            if count + len(new) <= n:
                for edge in new:
                    mask[edge] = True
                count += len(new)
            if count == n:
                break
        if count == before:
            break  # the last few edges fit nowhere
    return Circuit(graph, mask).connected()


def _way_back(
    graph: CircuitGraph, mask: Bool[Tensor, "sender reader"], sender: int, reader: int, generator: torch.Generator
) -> list[tuple[int, int]]:
    """Random edges from the embedding to a sender, at the tokens that a reader reads; none where it is connected."""
    added: list[tuple[int, int]] = []
    group = int(graph.read_group[reader])
    while sender != 0:
        inputs = graph.belongs[sender] & (graph.written_group == group)
        if mask[:, inputs].any():
            break
        reader = _choose(inputs, generator)
        sender = _choose(graph.valid[:, reader], generator)
        group = int(graph.read_group[reader])
        added.append((sender, reader))
    return added


def _way_forward(
    graph: CircuitGraph, mask: Bool[Tensor, "sender reader"], reader: int, generator: torch.Generator
) -> list[tuple[int, int]]:
    """Random edges from a reader's part to the logits; none where it is connected."""
    added: list[tuple[int, int]] = []
    while reader < graph.logits_slice.start:
        group = int(graph.written_group[reader])
        parts, there = graph.belongs[:, reader], graph.read_group == group
        if mask[parts][:, there].any():
            break
        sender = _choose(parts, generator)
        reader = _choose(graph.valid[sender] & there, generator)
        added.append((sender, reader))
    return added


def _choose(options: Bool[Tensor, "option"], generator: torch.Generator) -> int:
    found = options.nonzero()[:, 0]
    return int(found[torch.randint(len(found), (1,), generator=generator)])
