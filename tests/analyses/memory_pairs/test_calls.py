"""What analyses share of a batch is computed once, and is what each would have computed alone."""

import pytest
import torch
from analysis_batches import batch_of

from analyses.memory_pairs.agreement import KeyValueAgreement
from analyses.memory_pairs.calls import called_in_batch, called_memories, memory_sources, tables_of_batch
from analyses.memory_pairs.composition import Compositionality
from analyses.memory_pairs.lookup import TableStore
from analyses.statistics import Resampling


def test_a_search_is_shared_whoever_asks_first(monkeypatch):
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
    batch, one, other = batch_of("cls", [KeyValueAgreement()]), TableStore(), TableStore()
    assert tables_of_batch(batch, one, "mlp") is tables_of_batch(batch, other, "mlp")


@pytest.mark.parametrize("first", [KeyValueAgreement, Compositionality])
def test_the_order_of_analyses_does_not_matter(first):
    both = [KeyValueAgreement(resampling=Resampling(9)), Compositionality(resampling=Resampling(9))]
    alone = []
    for one in both:
        one.update(batch_of("swiglu_packed", both))
        alone.append(one.compute())
        one.reset()
    batch = batch_of("swiglu_packed", both)
    for one in sorted(both, key=lambda analysis: type(analysis) is not first):
        one.update(batch)
    for one, table in zip(both, alone, strict=True):
        assert one.compute().equals(table)


def test_attention_has_one_kind_of_coefficient():
    assert memory_sources(["attn", "mlp"], ["post"]) == [("attn", "post"), ("mlp", "post")]
    with pytest.raises(ValueError, match=r"expected sublayers and coefficients, got \[\] and \['pre'\]"):
        memory_sources([], ["pre"])
