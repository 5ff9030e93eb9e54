"""Curves, areas and minimality against single runs of circuits; faithfulness over a dataset against a loop."""

import numpy as np
import pytest
import torch
from analysis_batches import batch_of
from conftest import ported
from torch import Tensor

from analyses.circuits import (
    Circuit,
    CircuitFaithfulness,
    circuit_curve,
    edge_attribution,
    greedy_circuit,
    minimality,
    overlap,
    overlaps,
    planted_model,
    top_circuit,
)
from analyses.circuits.over_dataset import next_of_another_label
from analyses.circuits.quality import areas
from analyses.patching import logit_difference

CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(4))


def metric(logits: Tensor) -> Tensor:
    return (logits[:, 0] - logits[:, 4]).mean()


@pytest.mark.parametrize("search", ["top", "greedy"])
def test_a_curve_is_a_run_per_size(search: str) -> None:
    model = ported("gap_registers_layerscale")
    scores = edge_attribution(model, CLEAN, CORRUPT, metric)
    curve = circuit_curve(model, CLEAN, CORRUPT, metric, scores, shares=(0.0, 0.1, 0.5, 1.0), search=search, n_random=2)
    ends = float(metric(model(CLEAN))), float(metric(model(CORRUPT)))
    assert (curve.clean, curve.corrupt) == pytest.approx(ends)
    find = {"top": top_circuit, "greedy": greedy_circuit}[search]
    for i, share in enumerate(curve.shares):
        circuit = find(scores, int(share * 172))
        assert curve.n_edges[i] == circuit.n_edges

        def kept(some: Circuit) -> float:
            return (float(metric(some.run(model, CLEAN, CORRUPT))) - ends[1]) / (ends[0] - ends[1])

        assert float(curve.faithfulness[i]) == pytest.approx(kept(circuit), abs=1e-4)
        assert float(curve.complement[i]) == pytest.approx(kept(circuit.complement()), abs=1e-4)
    assert curve.random[-1] == pytest.approx(1, abs=1e-5)
    assert curve.random[0] == pytest.approx(0, abs=1e-5)
    table = curve.table()
    np.testing.assert_allclose(table["completeness"], 1 - table["complement"])
    x, y = np.array(curve.shares), curve.faithfulness.numpy().astype(float)
    assert curve.cpr == pytest.approx(sum((y[i] + y[i + 1]) / 2 * (x[i + 1] - x[i]) for i in range(3)))
    distance = abs(1 - y)
    assert curve.cmd == pytest.approx(sum((distance[i] + distance[i + 1]) / 2 * (x[i + 1] - x[i]) for i in range(3)))


def test_areas_of_a_perfect_and_a_linear_curve() -> None:
    assert areas((0.0, 0.5, 1.0), torch.ones(3)) == (1.0, 0.0)
    assert areas((0.0, 1.0), torch.tensor([0.0, 1.0])) == (0.5, 0.5)


def test_minimality_is_a_run_without_each_edge() -> None:
    model = ported("cls")
    circuit = greedy_circuit(edge_attribution(model, CLEAN, CORRUPT, metric), 12)
    table = minimality(model, CLEAN, CORRUPT, metric, circuit)
    whole = float(metric(circuit.run(model, CLEAN, CORRUPT)))
    for row, edge in enumerate(circuit.edges):
        less = float(metric(circuit.without(edge).run(model, CLEAN, CORRUPT)))
        assert table["change"][row] == pytest.approx(whole - less, abs=1e-5)
    difference = float(metric(model(CLEAN)) - metric(model(CORRUPT)))
    np.testing.assert_allclose(table["share"], table["change"] / difference, rtol=1e-3)


def test_a_planted_circuit_is_complete_and_minimal() -> None:
    planted = planted_model("and")
    run = planted.model, planted.clean, planted.corrupt, planted.metric
    scores = edge_attribution(*run)
    n_edges = scores.graph.n_edges
    curve = circuit_curve(*run, scores, shares=(len(planted.edges) / n_edges, 1.0))
    assert curve.n_edges == (5, n_edges)
    assert curve.faithfulness[0] > 0.97
    assert curve.completeness[0] > 0.97
    assert abs(curve.random[0]) < 0.1
    assert minimality(*run, curve.circuits[0])["share"].min() > 0.9


def test_overlaps() -> None:
    scores = edge_attribution(ported("cls"), CLEAN, CORRUPT, metric)
    few, more = greedy_circuit(scores, 8), greedy_circuit(scores, 30)
    shared = sum(edge in more.edges for edge in few.edges)
    expected = shared / (few.n_edges + more.n_edges - shared)
    assert overlap(few, more) == pytest.approx(expected)
    np.testing.assert_allclose(overlaps([few, more]), [[1, expected], [expected, 1]])


@pytest.mark.parametrize("given", [False, True])
def test_faithfulness_over_a_dataset_is_a_ratio_of_sums(given: bool) -> None:
    shares = (0.05, 0.3)
    fixed = edge_attribution(ported("cls"), CLEAN, CORRUPT, metric) if given else None
    analysis = CircuitFaithfulness(shares=shares, scores=fixed)
    batch = batch_of("cls", [analysis], index=(0, 1, 2, 3))
    assert batch.images is not None
    analysis.update(batch)
    table = analysis.compute()
    corrupt, others = next_of_another_label(batch)
    kept, whole = np.zeros(len(shares)), 0.0
    for image in range(4):
        if others[image] == batch.labels[image]:
            continue
        measure = logit_difference(int(batch.labels[image]), against=int(others[image]))
        pair = batch.images[image : image + 1], corrupt[image : image + 1]
        scores = fixed or edge_attribution(batch.model, *pair, measure)
        there = float(measure(batch.model(pair[1])))
        whole += float(measure(batch.model(pair[0]))) - there
        for i, share in enumerate(shares):
            kept[i] += float(measure(top_circuit(scores, int(share * 172)).run(batch.model, *pair))) - there
    found = table[(table["curve"] == "faithfulness") & (table["metric"] == "value")]
    np.testing.assert_allclose(found["value"], kept / whole, atol=1e-4)
    area = table[(table["curve"] == "faithfulness") & (table["metric"] == "cpr")]["value"].iloc[0]
    x, y = (0, *shares, 1), (0, *(kept / whole), 1)
    assert area == pytest.approx(sum((y[i] + y[i + 1]) / 2 * (x[i + 1] - x[i]) for i in range(3)), abs=1e-4)
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()


def test_images_do_not_depend_on_their_batch() -> None:
    def swapped(batch):
        return batch.images.flip(-1), (batch.labels + 1) % 7

    tables = []
    for shards in (((0, 1, 2),), ((2,), (0, 1))):
        analysis = CircuitFaithfulness(shares=(0.1,), counterfactual=swapped)
        for index in shards:
            analysis.update(batch_of("cls", [analysis], index=index))
        tables.append(analysis.compute()[["n_edges", "value", "low", "high"]].astype(float))
    np.testing.assert_allclose(*tables, atol=2e-3)


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    model = ported("cls")
    scores = edge_attribution(model, CLEAN, CORRUPT, metric)
    with pytest.raises(ValueError, match="a search 'top' or 'greedy', got 'best'"):
        circuit_curve(model, CLEAN, CORRUPT, metric, scores, search="best")
    with pytest.raises(ValueError, match=r"shares of the edges from 0 to 1, got \(2,\)"):
        circuit_curve(model, CLEAN, CORRUPT, metric, scores, shares=(2,))
    with pytest.raises(ValueError, match=r"the metric is .* for both runs, so no share of its change is defined"):
        circuit_curve(model, CLEAN, CLEAN, metric, scores, shares=(0.1,))
    with pytest.raises(ValueError, match="shares of the edges"):
        CircuitFaithfulness(shares=())
    with pytest.raises(ValueError, match="no image was counted"):
        CircuitFaithfulness().compute()
