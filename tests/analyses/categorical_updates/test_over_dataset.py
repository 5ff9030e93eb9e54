"""Categorical updates, against a loop over blocks, images and tokens."""

import numpy as np
import pandas as pd
import pytest
import torch
from analysis_batches import batch_of

from analyses.analysis.base import AnalysisBatch
from analyses.analysis.groups import TOKEN_GROUPS, token_groups
from analyses.categorical_updates.measures import residual_composition, similarity_change_rate, similarity_increase
from analyses.categorical_updates.over_dataset import CategoricalUpdates
from analyses.statistics import Resampling
from analyses.statistics.hypothesis_tests import permutation_test

BOTH = ("block_input", "layer_input")
STREAMS = {"attn": "attn_out", "mlp": "mlp_out", "block": "resid_post"}


def full(kind: str, index: range = range(5)) -> AnalysisBatch:
    return batch_of(kind, [CategoricalUpdates(BOTH, heads=True)], index=index)


def increase_of(batch: AnalysisBatch, sublayer: str, reference: str, sublayer_norm: bool = False) -> np.ndarray:
    """[layer image token], one block and image at a time."""
    model, increases = batch.model, []
    for layer, block in enumerate(model.blocks):
        before = "resid_mid" if (sublayer, reference) == ("mlp", "layer_input") else "resid_pre"
        for image, label in enumerate(batch.labels.tolist()):
            output = batch.cache[STREAMS[sublayer], layer][image]
            if sublayer_norm and sublayer != "block":
                output = (block.ln1 if sublayer == "attn" else block.ln2).fused(output)
            after, against = model.class_logits(output), model.class_logits(batch.cache[before, layer][image])
            increases.append([(a[label] - b[label]).item() for a, b in zip(after, against, strict=True)])
    return np.array(increases).reshape(len(model.blocks), len(batch.labels), -1)


def composition_of(batch: AnalysisBatch) -> np.ndarray:
    """[part layer image token]: is the top class after the block its input's, attention's, the MLP's, none's?"""
    model, matches = batch.model, []
    streams = "resid_pre", "attn_out", "mlp_out", "resid_post"
    for layer in range(len(model.blocks)):
        for image in range(len(batch.labels)):
            tops = [model.class_logits(batch.cache[stream, layer][image]).argmax(-1).tolist() for stream in streams]
            for previous, attn, mlp, after in zip(*tops, strict=True):
                matches.append([after == previous, after == attn, after == mlp, after not in (previous, attn, mlp)])
    shape = len(model.blocks), len(batch.labels), -1, 4
    return np.moveaxis(np.array(matches).reshape(shape), -1, 0)


def test_functions_agree_with_the_loop(kind):
    batch = full(kind, range(2))
    model, cache, layout = batch.model, batch.cache, batch.model.token_layout
    for sublayer in STREAMS:
        for reference in BOTH:
            expected = increase_of(batch, sublayer, reference)
            increase = similarity_increase(model, cache, batch.labels, sublayer, reference)
            assert increase.numpy() == pytest.approx(expected, abs=1e-5)
            rate = similarity_change_rate(model, cache, batch.labels, sublayer, reference)
            assert rate.patch.tolist() == pytest.approx((expected[:, :, layout.patches] > 0).mean(axis=(1, 2)).tolist())
            assert rate.prefix.shape == (3, layout.n_prefix)
            assert rate.prefix.numpy() == pytest.approx((expected[:, :, layout.prefix] > 0).mean(axis=1))


def test_heads_are_held_against_the_block_input(kind):
    batch = full(kind, range(2))
    model = batch.model
    names = [f"blocks.{layer}.attn.hook_result" for layer in range(3)]
    tokens = batch.cache["blocks.0.hook_resid_pre"]
    _, results = model.run_with_cache(tokens, names_filter=names, start_at_layer=0)
    increase = similarity_increase(model, batch.cache, batch.labels, "heads")
    assert increase.shape == (3, 2, model.token_layout.n_tokens, 3)
    for layer in range(3):
        for image, label in enumerate(batch.labels.tolist()):
            after = model.class_logits(results["result", layer][image])[..., label]
            before = model.class_logits(batch.cache["resid_pre", layer][image])[..., label]
            torch.testing.assert_close(increase[layer, image], after - before[:, None], atol=1e-4, rtol=1e-4)
    rate = similarity_change_rate(model, batch.cache, batch.labels, "heads")
    assert rate.patch.shape == (3, 3)
    assert rate.prefix.shape == (3, model.token_layout.n_prefix, 3)


def test_residual_composition_leaves_out_all_three_parts(kind):
    batch = full(kind, range(2))
    matches, layout = composition_of(batch), batch.model.token_layout
    for tokens, where in (("all", slice(None)), ("patch", layout.patches), ("prefix", layout.prefix)):
        if tokens == "prefix" and not layout.n_prefix:
            continue
        composition = residual_composition(batch.model, batch.cache, tokens)
        for place, part in enumerate(("previous", "attn", "mlp", "none")):
            expected = 100 * matches[place, :, :, where].mean(axis=(1, 2))
            assert getattr(composition, part).tolist() == pytest.approx(expected.tolist())


def test_a_norm_in_front_of_what_sublayers_write():
    batch = full("gap_registers_layerscale", range(2))
    increase = similarity_increase(batch.model, batch.cache, batch.labels, "mlp", sublayer_norm=True)
    assert increase.numpy() == pytest.approx(increase_of(batch, "mlp", "block_input", sublayer_norm=True), abs=1e-5)


def test_a_stream_edited_between_two_blocks_is_projected_anew():
    batch = full("cls", range(2))
    model, names = batch.model, CategoricalUpdates().names(batch.model.cfg)
    edit = [("blocks.2.hook_resid_pre", lambda residual, hook: residual.flip(-1))]
    with model.hooks(fwd_hooks=edit):
        _, cache = model.run_with_cache(batch.cache["resid_pre", 0], names_filter=names, start_at_layer=0)
    edited = AnalysisBatch(model, cache, batch.logits, batch.labels, batch.index)
    for sublayer in ("attn", "mlp"):
        increase = similarity_increase(model, cache, batch.labels, sublayer)
        assert increase.numpy() == pytest.approx(increase_of(edited, sublayer, "block_input"), abs=1e-5)
    expected = 100 * composition_of(edited)[0].mean(axis=(1, 2))
    assert residual_composition(model, cache).previous.tolist() == pytest.approx(expected.tolist())


def test_every_number_is_that_of_the_loop(kind):
    analysis = CategoricalUpdates(BOTH, heads=True, resampling=Resampling(30))
    batch = batch_of(kind, [analysis], index=range(5))
    analysis.update(batch)
    table, groups = analysis.compute(), token_groups(batch).numpy()
    correct = (batch.logits.argmax(-1) == batch.labels).numpy()
    subsets = {"all": correct | True, "correct": correct, "wrong": ~correct}
    per_token = {
        (stream, reference, head): increase
        for reference in BOTH
        for stream, head, increase in [
            *((STREAMS[s], None, increase_of(batch, s, reference)) for s in STREAMS),
            *(("result", h, similarity_increase(batch.model, batch.cache, batch.labels, "heads").numpy()[..., h])
              for h in range(3)),
        ]
    }  # fmt: skip
    composition = composition_of(batch)
    checked = 0
    for row in table[~table["region"].eq("object_minus_context") & table["images"].isin(subsets)].to_dict("records"):
        place = list(TOKEN_GROUPS.values()).index((row["token_type"], row["region"]))
        member = groups[:, place] & subsets[row["images"]][:, None]
        if row["metric"].startswith("composition"):
            part = ("previous", "attn", "mlp", "none").index(row["metric"].removeprefix("composition_"))
            expected = 100 * composition[part, row["layer"]][member].mean()
        else:
            head = None if pd.isna(row["head"]) else row["head"]
            increase = per_token[row["stream"], row["reference"], head][row["layer"]][member]
            expected = increase.mean() if row["metric"] == "similarity_increase" else (increase > 0).mean()
        assert row["value"] == pytest.approx(expected, abs=1e-5), row
        assert row["n_tokens"] == member.sum()
        checked += 1
    n_groups = int(groups.any(axis=(0, 2)).sum())
    n_sets = 1 + int(correct.any()) + int((~correct).any())
    assert checked == 3 * n_groups * n_sets * (2 * 2 * 6 + 4)


def test_correct_images_are_compared_with_wrong_ones():
    analysis = CategoricalUpdates(resampling=Resampling(99, seed=2))
    batch = batch_of("cls", [analysis], index=range(6))
    analysis.update(batch)
    correct = (batch.logits.argmax(-1) == batch.labels).numpy()
    of_patches = increase_of(batch, "mlp", "block_input")[:, :, batch.model.token_layout.patches].mean(axis=-1)
    table = analysis.compute().query(
        "images == 'correct_minus_wrong' and stream == 'mlp_out' and metric == 'similarity_increase' "
        "and token_type == 'patch' and region == 'all'"
    )
    assert table["layer"].tolist() == [0, 1, 2]
    for row in table.to_dict("records"):
        a, b = of_patches[row["layer"]][correct], of_patches[row["layer"]][~correct]
        expected = permutation_test(a, b, n_resamples=99, seed=2)
        assert row["value"] == pytest.approx(expected.difference, abs=1e-5)
        assert row["p_value"] == pytest.approx(expected.p_value)
        assert row["n_images"] == 6


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_shards_merge_to_one_pass():
    whole, shards = (
        CategoricalUpdates(resampling=Resampling(30)),
        [CategoricalUpdates(resampling=Resampling(30)) for _ in range(3)],
    )
    for shard, index in zip(shards, ([0, 1, 2], [3, 4], [5, 6, 7, 8]), strict=True):
        batch = batch_of("qk_norm", [whole], index=index)
        whole.update(batch)
        shard.update(batch)
    merged = CategoricalUpdates(resampling=Resampling(30))
    for one in (2, 0, 1):
        merged.merge_state(shards[one])
    pd.testing.assert_frame_equal(merged.compute(), whole.compute(), check_exact=True)


def test_analyses_of_a_batch_share_projections(monkeypatch):
    import analyses.analysis
    from analyses.identifiability import Identifiability

    projected, project = [], analyses.projection.project

    def count(model, cache, stream, *arguments, layers=None, **options):
        projected.append((stream, layers))
        return project(model, cache, stream, *arguments, layers=layers, **options)

    monkeypatch.setattr(analyses.analysis.base, "project", count)
    both = [Identifiability(), CategoricalUpdates()]
    batch = batch_of("cls", both)
    for one in both:
        one.update(batch)
    assert sorted(projected, key=str) == [("attn_out", None), ("mlp_out", None), ("resid_post", None),
                                          ("resid_pre", (0,))]  # fmt: skip


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_errors_say_what_is_wrong(bad_input):
    batch = full("cls", range(2))
    with pytest.raises(ValueError, match="expected sublayer 'attn', 'mlp', 'heads', 'block', got 'attention'"):
        similarity_increase(batch.model, batch.cache, batch.labels, "attention")
    with pytest.raises(ValueError, match="expected reference 'block_input', 'layer_input', got 'input'"):
        similarity_change_rate(batch.model, batch.cache, batch.labels, "attn", "input")
    for wrong in ("block_input", (), ("block_input", "input")):
        with pytest.raises(ValueError, match="references out of 'block_input', 'layer_input', got "):
            CategoricalUpdates(wrong)
    with pytest.raises(ValueError, match="no image was seen"):
        CategoricalUpdates().compute()
