"""Coherence, against a loop over value vectors, pairs and permutations."""

from itertools import combinations

import numpy as np
import pytest
import torch
from analysis_batches import model_of

from analyses.value_vectors.coherence import coherence_of_classes, semantic_coherence
from analyses.value_vectors.taxonomy import class_similarity
from analyses.value_vectors.vectors import value_logits

PATHS = [("a", "b"), ("a", "b"), ("a", "c"), ("d", "e"), ("d", "e"), ("f", "g"), ("f", "h")]


def mean_similarity(classes, similarity):
    return np.mean([similarity[a, b].item() for a, b in combinations(classes, 2)])


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
def test_scores_and_null_match_the_loop(sublayer):
    model, similarity = model_of("cls"), class_similarity(PATHS)
    coherence = semantic_coherence(model, PATHS, sublayer, k=3, n_permutations=20, seed=4)
    for layer in range(3):
        tops = value_logits(model, layer, sublayer).topk(3).indices.tolist()
        scores = [mean_similarity(top, similarity) for top in tops]
        assert coherence.score[layer].tolist() == pytest.approx(scores)
        generator = torch.Generator().manual_seed(4)
        null = []
        for _ in range(20):
            renamed = torch.randperm(7, generator=generator).tolist()
            null.append([mean_similarity([renamed[c] for c in top], similarity) for top in tops])
        assert coherence.null[layer].tolist() == pytest.approx(
            [np.mean(scores_of_permutation) for scores_of_permutation in null]
        )
        pooled = np.array(null).ravel()
        expected = [(1 + np.sum(pooled >= score - 1e-6)) / (1 + len(pooled)) for score in scores]
        assert coherence.p_value[layer].tolist() == pytest.approx(expected)
        as_high = sum(np.mean(permuted) >= np.mean(scores) - 1e-6 for permuted in null)
        assert float(coherence.layer_p_value[layer]) == pytest.approx((1 + as_high) / 21)
    table = coherence.table()
    assert table["value"].tolist() == pytest.approx(coherence.score.mean(-1).tolist())
    assert (table["null_low"] <= table["null"]).all()


def test_chunks_do_not_change_the_numbers(monkeypatch):
    tops, similarity = torch.tensor([[0, 1, 5], [2, 3, 4]]), class_similarity(PATHS)
    whole = coherence_of_classes(tops, similarity, 30, seed=1)
    monkeypatch.setattr("analyses.value_vectors.coherence.CHUNK_ELEMENTS", 13)
    parts = coherence_of_classes(tops, similarity, 30, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_finds_planted_value_vectors():
    similarity = class_similarity([(f"group {i // 5}",) for i in range(50)])
    planted = torch.arange(50).view(10, 5)
    score, p_value, null = coherence_of_classes(planted, similarity, 99)
    assert score.tolist() == [1.0] * 10
    assert float(p_value.max()) < 0.01
    assert float(null.max()) < 0.5


def test_errors():
    model = model_of("cls")
    with pytest.raises(ValueError, match="expected one path per class, 7, got 2"):
        semantic_coherence(model, PATHS[:2])
    with pytest.raises(ValueError, match="k must be from 2 to the number of classes, 7, got 1"):
        semantic_coherence(model, PATHS, k=1)
