"""A block's projections are computed once, and anew where a hook edited the stream between two blocks."""

import pytest
from categorical_updates_by_hand import batch_with_all_streams, composition_of, increase_of

from analyses.analysis.base import AnalysisBatch
from analyses.categorical_updates import block_projections
from analyses.categorical_updates.block_projections import BlockProjections
from analyses.categorical_updates.over_dataset import CategoricalUpdates


def test_a_stream_edited_between_two_blocks_is_projected_anew():
    batch = batch_with_all_streams("cls", range(2))
    model, names = batch.model, CategoricalUpdates().names(batch.model.cfg)
    edit = [("blocks.2.hook_resid_pre", lambda residual, hook: residual.flip(-1))]
    with model.hooks(fwd_hooks=edit):
        _, cache = model.run_with_cache(batch.cache["resid_pre", 0], names_filter=names, start_at_layer=0)
    edited = AnalysisBatch(model, cache, batch.logits, batch.labels, batch.index)
    projections = BlockProjections.of_cache(model, cache, batch.labels)
    for sublayer in ("attn", "mlp"):
        expected = increase_of(edited, sublayer, "block_input")
        assert projections.increase(sublayer, "block_input").numpy() == pytest.approx(expected, abs=1e-5)
    assert projections.matches().tolist() == composition_of(edited).tolist()


def test_each_stream_of_a_cache_is_projected_once(monkeypatch):
    projected, project = [], block_projections.project

    def count(model, cache, stream, labels, k, layers, **options):
        projected.append((stream, layers))
        return project(model, cache, stream, labels, k, layers=layers, **options)

    monkeypatch.setattr(block_projections, "project", count)
    batch = batch_with_all_streams("cls", range(2))
    projections = BlockProjections.of_cache(batch.model, batch.cache, batch.labels)
    for sublayer in ("attn", "mlp", "block", "mlp"):
        projections.increase(sublayer, "block_input")
    projections.matches()
    assert sorted(projected, key=str) == [
        ("attn_out", None), ("mlp_out", None), ("resid_post", None), ("resid_pre", (0,)),
    ]  # fmt: skip


def test_a_batch_gives_the_numbers_of_its_cache():
    batch = batch_with_all_streams("qk_norm", range(2))
    of_cache = BlockProjections.of_cache(batch.model, batch.cache, batch.labels)
    of_batch = BlockProjections.of_batch(batch)
    assert of_cache.increase("mlp", "layer_input").tolist() == of_batch.increase("mlp", "layer_input").tolist()
    assert of_cache.matches().tolist() == of_batch.matches().tolist()
