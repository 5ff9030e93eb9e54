"""Circuits against runs by hand, edge by edge; the whole graph and the empty one to the last bit."""

import pytest
import torch
from circuits_by_hand import run_by_hand
from conftest import ported

from analyses.circuits import Circuit, CircuitGraph, circuit_graph, mean_recording, record
from analyses.circuits.circuit import run_circuits
from analyses.circuits.groups import group_members
from hooked_vit import HookedViT

CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(4))


def split(model: HookedViT) -> tuple[dict[str, list[int]], list[int]]:
    """Three groups of tokens, and the group of each token."""
    group_of = [token % 3 if token > 1 else 0 for token in range(model.cfg.n_ctx)]
    return {"abc"[group]: [i for i, own in enumerate(group_of) if own == group] for group in range(3)}, group_of


def some_edges(graph, share: float, seed: int = 0) -> Circuit:
    drawn = torch.rand(graph.valid.shape, generator=torch.Generator().manual_seed(seed))
    return Circuit(graph, graph.valid & (drawn < share))


@pytest.mark.parametrize("grouped", [False, True])
def test_all_edges_are_the_clean_run_and_none_the_corrupt_run_to_the_bit(kind: str, grouped: bool) -> None:
    model = ported(kind)
    groups = split(model)[0] if grouped else None
    whole = Circuit.whole(circuit_graph(model, tuple(groups or ())))
    with torch.no_grad():  # with gradients, attention with a bias takes another kernel
        expected = model(CLEAN), model(CORRUPT)
    assert torch.equal(whole.run(model, CLEAN, CORRUPT, groups), expected[0])
    assert torch.equal(whole.complement().run(model, CLEAN, CORRUPT, groups), expected[1])
    assert not model.list_hooks()


def test_a_run_equals_the_loop_over_edges(kind: str) -> None:
    model = ported(kind)
    circuit = some_edges(circuit_graph(model), 0.6)
    expected = run_by_hand(model, circuit.graph, circuit.mask, CLEAN, CORRUPT, [0] * model.cfg.n_ctx)
    torch.testing.assert_close(circuit.run(model, CLEAN, CORRUPT), expected, rtol=1e-4, atol=1e-5)
    assert (expected - model(CLEAN)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["gap_registers_layerscale", "post_norm", "inner_norms"])
def test_a_run_of_groups_equals_the_loop_over_edges_and_tokens(kind: str) -> None:
    model = ported(kind)
    groups, group_of = split(model)
    circuit = some_edges(circuit_graph(model, tuple(groups)), 0.6)
    expected = run_by_hand(model, circuit.graph, circuit.mask, CLEAN, CORRUPT, group_of)
    found = circuit.run(model, CLEAN, CORRUPT, groups)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_groups_of_each_image() -> None:
    model = ported("cls")
    groups, _group_of = split(model)
    first = group_members(groups, model.token_layout, model.cfg.n_ctx, 1)[0]
    second = first[[1, 2, 0]]
    masks = {name: torch.stack([first[i], second[i]]) for i, name in enumerate("abc")}
    circuit = some_edges(circuit_graph(model, "abc"), 0.6)
    found = circuit.run(model, CLEAN, CORRUPT, masks)
    each = [
        circuit.run(model, CLEAN[i : i + 1], CORRUPT[i : i + 1], {name: mask[i] for name, mask in masks.items()})
        for i in range(2)
    ]
    torch.testing.assert_close(found, torch.cat(each), rtol=1e-4, atol=1e-5)


def test_edges_of_groups_together_are_the_edge_of_all_tokens() -> None:
    model = ported("cls")
    groups, _ = split(model)
    graph, grouped = circuit_graph(model), circuit_graph(model, tuple(groups))
    circuit = some_edges(graph, 0.5)
    mask = torch.zeros_like(grouped.valid)
    for i, j in grouped.valid.nonzero().tolist():
        reader = grouped.readers[j]
        alone = reader[: {"q": 3, "k": 3, "v": 3, "mlp": 2, "logits": 1}[reader[0]]]
        mask[i, j] = circuit.mask[i, graph.readers.index(alone)]
    found = Circuit(grouped, mask).run(model, CLEAN, CORRUPT, groups)
    torch.testing.assert_close(found, circuit.run(model, CLEAN, CORRUPT), rtol=1e-4, atol=1e-5)


def test_unconnected_edges_change_nothing() -> None:
    model = ported("gap_registers_layerscale")
    circuit = some_edges(circuit_graph(model), 0.3)
    connected = circuit.connected()
    assert 0 < connected.n_edges < circuit.n_edges
    assert connected.is_connected
    assert not circuit.is_connected
    assert torch.equal(connected.run(model, CLEAN, CORRUPT), circuit.run(model, CLEAN, CORRUPT))


@pytest.mark.parametrize("groups", [None, "abc"])
def test_connected_edges_are_those_on_a_path(groups: str | None) -> None:
    """Against a search of paths, node by node."""
    graph = circuit_graph(ported("cls"), tuple(groups or ()))
    circuit = some_edges(graph, 0.25, seed=1)
    edges = [(i, j) for i, j in circuit.mask.nonzero().tolist()]

    def nodes_of(j: int) -> list[tuple[int, int]]:
        return [(part, int(graph.written_group[j])) for part in graph.parts_of(j)] or [(-1, 0)]

    after: dict[tuple[int, int], set] = {}
    for i, j in edges:
        after.setdefault((i, int(graph.read_group[j])), set()).update(nodes_of(j))

    def reach(start: list[tuple[int, int]], arrows: dict) -> set:
        seen, stack = set(start), list(start)
        while stack:
            for node in arrows.get(stack.pop(), ()):
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
        return seen

    back: dict = {}
    for node, targets in after.items():
        for target in targets:
            back.setdefault(target, set()).add(node)
    forward = reach([(0, group) for group in range(graph.n_groups)], after)
    backward = reach([(-1, 0)], back)
    expected = {(i, j) for i, j in edges if (i, int(graph.read_group[j])) in forward
                and any(node in backward for node in nodes_of(j))}  # fmt: skip
    assert set(map(tuple, circuit.connected().mask.nonzero().tolist())) == expected
    assert expected


def test_many_circuits_at_once_in_little_memory() -> None:
    model = ported("cls")
    graph = circuit_graph(model)
    circuits = [some_edges(graph, share) for share in (0.0, 0.2, 0.5, 0.9, 1.0)]
    expected = torch.stack([circuit.run(model, CLEAN, CORRUPT) for circuit in circuits])
    masks, members = torch.stack([circuit.mask for circuit in circuits]), torch.ones(1, 1, 13, dtype=torch.bool)
    for memory_limit in (None, 3.3e5, 7e4):
        found = torch.cat(list(
            run_circuits(model, graph, masks, CLEAN, record(model, CORRUPT), members, memory_limit=memory_limit)
        ))  # fmt: skip
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"memory_limit=100 bytes, but a graph of 172 edges needs about \d+ per image"):
        next(run_circuits(model, graph, masks, CLEAN, record(model, CORRUPT), members, memory_limit=100))


def test_the_mean_of_a_dataset_as_corrupt_value() -> None:
    model = ported("post_norm")
    mean = mean_recording(model, [CLEAN, CORRUPT[:1]])
    assert mean.writes.shape[0] == 1
    runs = [record(model, CLEAN), record(model, CORRUPT[:1])]
    torch.testing.assert_close(mean.writes, torch.cat([run.writes for run in runs]).mean(0, keepdim=True))
    torch.testing.assert_close(mean.final, torch.cat([run.final for run in runs]).mean(0, keepdim=True))
    empty = Circuit.whole(circuit_graph(model)).complement()
    torch.testing.assert_close(empty.run(model, CLEAN, mean), mean.logits.expand(2, -1))
    assert torch.equal(empty.complement().run(model, CLEAN, mean), model(CLEAN))


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    model = ported("cls")
    graph = circuit_graph(model)
    with pytest.raises(ValueError, match=r"of the same size, got clean .* and corrupt"):
        Circuit.whole(graph).run(model, CLEAN, CORRUPT[:1])
    with pytest.raises(ValueError, match=r"the recording has 2 images, 13 tokens, 13 senders and width 24, expected 1"):
        Circuit.whole(graph).run(model, CLEAN[:1], record(model, CORRUPT))
    with pytest.raises(ValueError, match="no edge from"):
        Circuit.of(graph, [(("mlp", 2), ("q", 0, 0))])
    with pytest.raises(ValueError, match=r"no \('head', 7, 0\) in this graph: it has \('head', 0, 0\)"):
        Circuit.of(graph, [(("head", 7, 0), ("logits",))])
    with pytest.raises(ValueError, match="expected the graph's groups of tokens, none, got a"):
        Circuit.whole(graph).run(model, CLEAN, CORRUPT, {"a": "any"})
    split_graph = circuit_graph(model, ("a", "b"))
    with pytest.raises(ValueError, match=r"token 1 is in none: let groups divide the tokens"):
        Circuit.whole(split_graph).run(model, CLEAN, CORRUPT, {"a": [0], "b": [2]})
    with pytest.raises(ValueError, match="token 0 is in 'a' and 'b'"):
        Circuit.whole(split_graph).run(model, CLEAN, CORRUPT, {"a": "any", "b": [0]})
    with pytest.raises(ValueError, match="groups with different names"):
        circuit_graph(model, ("a", "a"))
    with pytest.raises(ValueError, match="the circuit is one of another model"):
        Circuit.whole(CircuitGraph(2, 3)).run(model, CLEAN, CORRUPT)
    with pytest.raises(ValueError, match="no edge from"):
        Circuit(graph, ~graph.valid)
