"""The graph: which edges exist, in which order, and their names."""

import pytest
from conftest import ported

from analyses.circuits import CircuitGraph, circuit_graph


def time_of(part: tuple, parallel: bool) -> int:
    """When a part reads: heads at 3 * layer, the MLP one later, unless in parallel. It writes at that time plus 1."""
    if part[0] in ("embed", "logits"):
        return -1 if part[0] == "embed" else 10**6
    return 3 * part[1] + (part[0] == "mlp" and not parallel)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("groups", [(), ("x", "y")])
def test_edges_lead_to_later_readers(parallel: bool, groups: tuple[str, ...]) -> None:
    graph = CircuitGraph(3, 4, (4, 4, 2), (parallel,) * 3, groups)
    expected = {
        (i, j)
        for i, sender in enumerate(graph.senders)
        for j, reader in enumerate(graph.readers)
        if time_of(sender, parallel) < time_of(reader, parallel)
    }
    assert set(map(tuple, graph.valid.nonzero().tolist())) == expected
    assert graph.n_edges == len(expected)
    assert graph.valid.shape == (graph.n_senders, graph.n_readers)
    n = max(1, len(groups))
    assert graph.n_readers == 3 * n * (4 + 1) + 2 * n * n * (4 + 4 + 2) + n
    for layer in range(3):
        for kind in ("q", "k", "v", "mlp"):
            readers = graph.readers[graph.reader_slice(kind, layer)]
            assert readers
            assert all(reader[:2] == (kind, layer) for reader in readers)
    for i, j in list(expected)[::7]:
        assert graph.index(graph.edge(i, j)) == (i, j)


def test_readers_belong_to_their_parts() -> None:
    graph = CircuitGraph(2, 4, (2, 4), groups=("x", "y"))
    shared = graph.readers.index(("k", 0, 1, "x", "y"))
    assert [graph.senders[part] for part in graph.parts_of(shared)] == [("head", 0, 2), ("head", 0, 3)]
    assert graph.groups[graph.read_group[shared]] == "x"
    assert graph.groups[graph.written_group[shared]] == "y"
    assert [graph.senders[i] for i in graph.parts_of(graph.readers.index(("q", 1, 3, "y")))] == [("head", 1, 3)]
    assert graph.parts_of(graph.n_readers - 1) == []


def test_the_graph_of_a_model() -> None:
    graph = circuit_graph(ported("gap_registers_layerscale"))
    assert (graph.n_layers, graph.n_heads, graph.n_key_value_heads) == (3, 3, (3, 3, 3))
    with pytest.raises(ValueError, match=r"no edge from .* the reader must come later, at the same tokens"):
        circuit_graph(ported("cls"), ("x", "y")).index((("embed", "x"), ("q", 0, 0, "y")))
    with pytest.raises(ValueError, match="expected a kind of reader out of 'q', 'k', 'v', 'mlp', got 'z'"):
        graph.reader_slice("z", 0)
