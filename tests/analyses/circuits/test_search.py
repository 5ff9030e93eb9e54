"""Searches against loops written out: sorting, growing one edge at a time, pruning one run at a time."""

import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.circuits import (
    Circuit,
    EdgeScores,
    circuit_graph,
    edge_attribution,
    greedy_circuit,
    pruned_circuit,
    random_circuit,
    top_circuit,
)

CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(4))


def metric(logits: Tensor) -> Tensor:
    return (logits[:, 0] - logits[:, 4]).mean()


def random_scores(groups: tuple[str, ...] = ()) -> EdgeScores:
    graph = circuit_graph(ported("cls"), groups)
    values = torch.randn(graph.valid.shape, generator=torch.Generator().manual_seed(0)) * graph.valid
    return EdgeScores(graph, "eap", values, torch.tensor(2.0), torch.tensor(-1.0))


@pytest.mark.parametrize("ranking", ["absolute", "helpful"])
def test_the_largest_edges(ranking: str) -> None:
    scores = random_scores()
    edges = [(i, j) for i, j in scores.graph.valid.nonzero().tolist()]
    # corruption lowers the metric here, so helpful edges are those with negative scores
    importance = {at: float(abs(scores.values[at]) if ranking == "absolute" else -scores.values[at]) for at in edges}
    mask = torch.zeros_like(scores.graph.valid)
    for at in sorted(edges, key=lambda at: -importance[at])[:60]:
        mask[at] = True
    found = top_circuit(scores, 60, ranking)
    assert torch.equal(found.mask, Circuit(scores.graph, mask).connected().mask)
    filled = top_circuit(scores, 60, ranking, fill=True)
    assert found.n_edges < filled.n_edges <= 60
    assert filled.is_connected
    assert top_circuit(scores, 172).n_edges == 172
    assert top_circuit(scores, 0).n_edges == 0


@pytest.mark.parametrize("groups", [(), ("x", "y")])
def test_greedy_growth_from_the_logits(groups: tuple[str, ...]) -> None:
    scores = random_scores(groups)
    graph, mask = scores.graph, torch.zeros_like(scores.graph.valid)
    for _ in range(40):
        nodes = {(i, int(graph.read_group[j])) for i, j in mask.nonzero().tolist()}
        open_readers = [
            j for j, reader in enumerate(graph.readers)
            if reader[0] == "logits" or any((part, int(graph.written_group[j])) in nodes for part in graph.parts_of(j))
        ]  # fmt: skip
        options = [(i, j) for i, j in (graph.valid & ~mask).nonzero().tolist() if j in open_readers]
        mask[max(options, key=lambda at: abs(scores.values[at]))] = True
    assert torch.equal(greedy_circuit(scores, 40).mask, Circuit(graph, mask).connected().mask)


@pytest.mark.parametrize("use_scores", [False, True])
def test_pruning_goes_one_edge_at_a_time(use_scores: bool) -> None:
    model = ported("cls")
    scores = edge_attribution(model, CLEAN, CORRUPT, metric)
    start = greedy_circuit(scores, 25)
    threshold = float(scores.values[start.mask].abs().median())
    graph, circuit = scores.graph, start
    value = float(metric(circuit.run(model, CLEAN, CORRUPT)))
    for j in reversed(range(graph.n_readers)):
        senders = [i for i in reversed(range(graph.n_senders)) if circuit.connected().mask[i, j]]
        if use_scores:
            senders.sort(key=lambda i, j=j: abs(float(scores.values[i, j])))
        if not senders:
            mask = circuit.mask.clone()
            mask[:, j] = False
            circuit = Circuit(graph, mask)
        for i in senders:
            less = circuit.without(graph.edge(i, j))
            after = float(metric(less.run(model, CLEAN, CORRUPT)))
            if abs(after - value) < threshold:
                circuit, value = less, after
    found = pruned_circuit(model, CLEAN, CORRUPT, metric, threshold, start=start, scores=scores if use_scores else None)
    assert torch.equal(found.mask, circuit.connected().mask)
    assert 0 < found.n_edges < start.n_edges
    assert found.is_connected


@pytest.mark.parametrize("groups", [(), ("x", "y")])
@pytest.mark.parametrize("n", [1, 7, 40, 120])
def test_random_circuits_are_connected_and_of_the_size(n: int, groups: tuple[str, ...]) -> None:
    graph = circuit_graph(ported("cls"), groups)
    circuits = [random_circuit(graph, n, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert all(circuit.is_connected and circuit.n_edges == n for circuit in circuits)
    assert torch.equal(circuits[0].mask, circuits[1].mask)
    assert n == 1 or not torch.equal(circuits[0].mask, circuits[2].mask)
    assert random_circuit(graph, graph.n_edges, torch.Generator()).n_edges == graph.n_edges


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    scores = random_scores()
    for search in (top_circuit, greedy_circuit):
        with pytest.raises(ValueError, match="a number of edges from 0 to 172, got 173"):
            search(scores, 173)
    with pytest.raises(ValueError, match="expected ranking 'absolute' or 'helpful', got 'best'"):
        top_circuit(scores, 3, "best")
    with pytest.raises(ValueError, match="a threshold above 0"):
        pruned_circuit(ported("cls"), CLEAN, CORRUPT, metric, 0)
    with pytest.raises(ValueError, match="a number of edges from 0 to 172, got -1"):
        random_circuit(scores.graph, -1, torch.Generator())
