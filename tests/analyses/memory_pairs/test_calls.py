"""The memories that tokens activate, against sorting; analyses of a batch share one search and one set of tables."""

import pytest
import torch
from analysis_batches import batch_of

from analyses.memory_pairs.agreement import KeyValueAgreement
from analyses.memory_pairs.calls import called_in_batch, called_memories, memory_sources, tables_of_batch
from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.memory_pairs.composition import Compositionality
from analyses.memory_pairs.lookup import TableStore
from analyses.statistics import Resampling


@pytest.mark.parametrize(("sublayer", "kind"), [("mlp", "pre"), ("mlp", "post"), ("attn", "post")])
def test_matches_sorting_every_coefficient(sublayer, kind):
    batch = batch_of("cls", [KeyValueAgreement()])
    for layer, memories in enumerate(called_memories(batch.model, batch.cache, sublayer, 4, kind)):
        coefficients = memory_coefficients(batch.model, batch.cache, layer, sublayer, kind)
        for image, token in ((0, 0), (1, 5)):
            values = coefficients[image, token].tolist()
            assert memories[image, token].tolist() == sorted(range(len(values)), key=lambda m: -values[m])[:4]


def test_chunks_do_not_change_the_memories(monkeypatch):
    batch = batch_of("cls", [KeyValueAgreement()])
    whole = list(called_memories(batch.model, batch.cache, "mlp", 5, "pre"))
    monkeypatch.setattr("analyses.memory_pairs.calls.CHUNK_ELEMENTS", 1)
    parts = called_memories(batch.model, batch.cache, "mlp", 5, "pre")
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_one_search_serves_all_analyses(monkeypatch):
    analysis = KeyValueAgreement()
    batch = batch_of("cls", [analysis])
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return called_memories(*arguments)

    monkeypatch.setattr("analyses.memory_pairs.calls.called_memories", counted)
    three, seven = (called_in_batch(batch, ("mlp", "post"), k) for k in (3, 7))
    assert len(calls) == 1
    expected = list(called_memories(batch.model, batch.cache, "mlp", 7, "post"))
    assert all(torch.equal(a, b) for a, b in zip(seven, expected, strict=True))
    assert all(torch.equal(a, b[..., :3]) for a, b in zip(three, expected, strict=True))
    assert called_in_batch(batch, ("mlp", "post"), 30)[0].shape[-1] == 30
    assert len(calls) == 2


def test_tables_are_shared_between_analyses():
    batch, store, other_store = batch_of("cls", [KeyValueAgreement()]), TableStore(), TableStore()
    assert tables_of_batch(batch, store, "mlp") is tables_of_batch(batch, other_store, "mlp")


@pytest.mark.parametrize("first", [KeyValueAgreement, Compositionality])
def test_the_order_of_analyses_does_not_matter(first):
    both = [KeyValueAgreement(resampling=Resampling(9)), Compositionality(resampling=Resampling(9))]
    alone = []
    for analysis in both:
        analysis.update(batch_of("swiglu_packed", both))
        alone.append(analysis.compute())
        analysis.reset()
    batch = batch_of("swiglu_packed", both)
    for analysis in sorted(both, key=lambda analysis: type(analysis) is not first):
        analysis.update(batch)
    for analysis, table in zip(both, alone, strict=True):
        assert analysis.compute().equals(table)


def test_attention_has_one_kind_of_coefficient():
    assert memory_sources(["attn", "mlp"], ["post"]) == [("attn", "post"), ("mlp", "post")]
    with pytest.raises(ValueError, match=r"expected sublayers and coefficients, got \[\] and \['pre'\]"):
        memory_sources([], ["pre"])
