"""Exact scores against path patching, one sender and one receiver at a time, and against the run by hand."""

import pytest
import torch
from circuits_by_hand import run_by_hand
from conftest import ported
from torch import Tensor

from analyses.circuits import edge_attribution, edge_patching, score_agreement
from analyses.patching import path_patching

CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(4))


def metric(logits: Tensor) -> Tensor:
    return (logits[:, 0] - logits[:, 4]).mean()


@pytest.mark.parametrize("name", ["cls", "gap_registers_layerscale", "swiglu_rms"])
def test_exact_scores_are_paths_patched_one_by_one(name: str) -> None:
    model = ported(name)
    found = edge_patching(model, CLEAN, CORRUPT, metric)
    graph = found.graph
    for j, reader in enumerate(graph.readers):
        senders = [graph.senders[i] for i in graph.valid[:, j].nonzero()[:, 0].tolist()]
        expected = path_patching(model, CLEAN, CORRUPT, metric, [reader], senders, direction="noising").effect
        torch.testing.assert_close(found.values[: len(senders), j], expected, rtol=1e-3, atol=2e-6)


def test_one_edge_of_a_post_norm_block_by_hand() -> None:
    model = ported("post_norm")
    edge = (("head", 0, 1), ("v", 2, 0))
    found = edge_patching(model, CLEAN, CORRUPT, metric, [edge])
    graph = found.graph
    expected = run_by_hand(model, graph, graph.valid & ~graph.mask([edge]), CLEAN, CORRUPT, [0] * 12)
    torch.testing.assert_close(found.at(edge), metric(expected) - metric(model(CLEAN)), rtol=1e-3, atol=2e-6)
    assert int((found.values != 0).sum()) == 1


def test_small_differences_are_predicted_by_attribution() -> None:
    model, near = ported("cls"), CLEAN + 1e-2 * (CORRUPT - CLEAN)
    exact = edge_patching(model, CLEAN, near, metric)
    agreement = score_agreement(edge_attribution(model, CLEAN, near, metric), exact, n=20)
    assert agreement.pearson > 0.999
    assert agreement.recall > 0.9
    assert agreement.n_edges == 172


def test_groups_and_images_in_little_memory() -> None:
    model = ported("cls")
    groups = {"a": [0, 3], "b": [token for token in range(13) if token not in (0, 3)]}
    edges = [(("embed", "b"), ("v", 1, 2, "b", "a")), (("head", 0, 1, "a"), ("logits", "a"))]
    whole = edge_patching(model, CLEAN, CORRUPT, metric, edges, groups=groups)
    each = edge_patching(
        model, CLEAN, CORRUPT, lambda logits: logits[:, 0] - logits[:, 4], edges, groups=groups, per_image=True,
        memory_limit=2e5,
    )  # fmt: skip
    torch.testing.assert_close(each.mean, whole.values, rtol=1e-4, atol=1e-6)
    # the head reads CLS: what other tokens' heads write at the end does not reach it
    other = edge_patching(model, CLEAN, CORRUPT, metric, [(("head", 2, 1, "b"), ("logits", "b"))], groups=groups)
    assert not other.values.any()
    assert whole.values.count_nonzero() == 2
