"""Planted circuits are found by every search, edge for edge, and nothing where nothing is planted."""

import pytest
import torch

from analyses.circuits import (
    Circuit,
    circuit_graph,
    edge_attribution,
    edge_patching,
    greedy_circuit,
    pruned_circuit,
    top_circuit,
)
from analyses.circuits.planted import planted_model

PLANTS = ("copy", "gate", "and")


@pytest.mark.parametrize("plant", PLANTS)
def test_the_planted_edges_are_the_whole_story(plant: str) -> None:
    planted = planted_model(plant)
    model, clean, corrupt = planted.model, planted.clean, planted.corrupt
    ends = [float(planted.metric(model(images))) for images in (clean, corrupt)]
    assert ends[0] - ends[1] > 1
    circuit = Circuit.of(circuit_graph(model), planted.edges)
    assert circuit.is_connected
    assert float(planted.metric(circuit.run(model, clean, corrupt))) == pytest.approx(ends[0], abs=0.02)
    assert float(planted.metric(circuit.complement().run(model, clean, corrupt))) == pytest.approx(ends[1], abs=0.02)
    for edge in planted.edges:
        less = float(planted.metric(circuit.without(edge).run(model, clean, corrupt)))
        assert ends[0] - less > 0.2, edge


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_search_returns_exactly_the_planted_edges(plant: str, seed: int) -> None:
    planted = planted_model(plant, seed)
    run = planted.model, planted.clean, planted.corrupt, planted.metric
    expected = set(planted.edges)
    for scores in (edge_attribution(*run), edge_attribution(*run, "eap-ig", steps=8), edge_patching(*run)):
        n = len(expected)
        assert set(top_circuit(scores, n).edges) == expected, scores.method
        assert set(greedy_circuit(scores, n).edges) == expected, scores.method
        others = scores.values.masked_fill(scores.graph.mask(planted.edges), 0).abs().max()
        assert others < 0.02 < min(abs(float(scores.at(edge))) for edge in expected), scores.method
        assert set(pruned_circuit(*run, threshold=0.1, scores=scores).edges) == expected
    assert set(pruned_circuit(*run, threshold=0.1).edges) == expected


def test_eap_gp_finds_what_is_planted() -> None:
    planted = planted_model("gate")
    scores = edge_attribution(planted.model, planted.clean, planted.corrupt, planted.metric, "eap-gp", steps=8)
    assert set(top_circuit(scores, 4).edges) == set(planted.edges)


def test_nothing_is_said_where_nothing_is_planted() -> None:
    planted = planted_model("none")
    run = planted.model, planted.clean, planted.corrupt, planted.metric
    for scores in (edge_attribution(*run), edge_attribution(*run, "eap-ig"), edge_patching(*run)):
        assert scores.values.abs().max() < 0.02
    assert pruned_circuit(*run, threshold=0.1).n_edges == 0
    assert (planted.model(planted.clean) - planted.model(planted.corrupt)).abs().max() < 0.02


def test_groups_say_where_the_planted_head_reads() -> None:
    planted = planted_model("copy")
    groups = {"cls": [0], "marked": [1], "others": [2, 3, 4]}
    scores = edge_patching(planted.model, planted.clean, planted.corrupt, planted.metric, groups=groups)
    found = set(scores.graph.edges(scores.values.abs() > 0.1))
    assert (("embed", "marked"), ("v", 0, 1, "marked", "cls")) in found
    assert (("head", 0, 1, "cls"), ("logits", "cls")) in found
    written = {reader[-1] for _, reader in found}
    assert written == {"cls"}


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    with pytest.raises(ValueError, match="a plant out of 'copy', 'gate', 'and', 'none', got 'or'"):
        planted_model("or")
    assert torch.equal(planted_model("copy", 3).clean, planted_model("copy", 4).clean)
