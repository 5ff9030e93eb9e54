"""Identifiability compared with a loop over images, blocks and tokens that sorts logits, as the paper defines it."""

import numpy as np
import pandas as pd
import pytest
import torch
from analysis_batches import batch_of, whole_and_merged

from analyses.analysis.base import AnalysisBatch
from analyses.analysis.groups import TOKEN_GROUPS, token_groups
from analyses.analysis.null_control import compare_with_null
from analyses.identifiability import (
    Identifiability,
    ImageIdentifiability,
    change_rate,
    identifiability,
    identifiability_rate,
)
from analyses.projection import project
from analyses.statistics import Resampling
from analyses.statistics.hypothesis_tests import permutation_test, pooled_permutation_test
from hooked_vit import TokenLayout


def ranks_and_logits(batch: AnalysisBatch) -> tuple[np.ndarray, np.ndarray]:
    """[layer image token] rank and logit of the correct class, counted one token at a time."""
    model, ranks, logits = batch.model, [], []
    for layer in range(model.cfg.n_layers):
        residual = batch.cache["resid_post", layer]
        for image, label in enumerate(batch.labels.tolist()):
            for scores in model.class_logits(residual[image]).tolist():
                ranks.append(sum(score > scores[label] for score in scores))
                logits.append(scores[label])
    shape = model.cfg.n_layers, len(batch.labels), -1
    return np.array(ranks).reshape(shape), np.array(logits).reshape(shape)


def row(table: pd.DataFrame, metric: str, layer: int, token_type: str, region: str) -> dict:
    """The one row."""
    rows = table[
        (table["metric"] == metric)
        & (table["layer"] == layer)
        & (table["token_type"] == token_type)
        & (table["region"] == region)
    ]
    (found,) = rows.to_dict("records")
    return found


def test_every_number_is_that_of_the_loop(kind):
    analysis = Identifiability(resampling=Resampling(50))
    batch = batch_of(kind, [analysis], index=range(5))
    analysis.update(batch)
    table = analysis.compute()
    (rank, logit), groups = ranks_and_logits(batch), token_groups(batch).numpy()
    for place, (token_type, region) in enumerate(TOKEN_GROUPS.values()):
        member = groups[:, place]
        if not member.any():
            assert table.query(f"token_type == '{token_type}' and region == '{region}'").empty
            continue
        for layer in range(3):
            ours = [1 - rank[layer, i, t] / 7 for i, t in np.argwhere(member)]
            mean = row(table, "identifiability", layer, token_type, region)
            assert mean["value"] == pytest.approx(np.mean(ours))
            assert mean["low"] <= mean["value"] <= mean["high"]
            assert (mean["n_images"], mean["n_tokens"]) == (member.any(axis=1).sum(), member.sum())
            for name, share in (("q25", 0.25), ("median", 0.5), ("q75", 0.75)):
                expected = np.quantile(ours, share, method="inverted_cdf")
                quartile = row(table, f"identifiability_{name}", layer, token_type, region)["value"]
                assert quartile == pytest.approx(expected), (name, layer)
            rate = row(table, "identifiability_rate", layer, token_type, region)["value"]
            assert rate == pytest.approx(100 * np.mean(np.array(ours) == 1))
            if token_type == "patch":
                with_one = [any(rank[layer, i][member[i]] == 0) for i in range(5) if member[i].any()]
                found = row(table, "images_with_identifiable", layer, token_type, region)["value"]
                assert found == pytest.approx(100 * np.mean(with_one))
            if layer:
                rising = [logit[layer, i, t] > logit[layer - 1, i, t] for i, t in np.argwhere(member)]
                found = row(table, "change_rate", layer, token_type, region)["value"]
                assert found == pytest.approx(np.mean(rising))


def test_regions_are_compared_within_images_and_pooled():
    analysis = Identifiability(resampling=Resampling(99, seed=3))
    batch = batch_of("cls", [analysis], index=range(6))
    analysis.update(batch)
    table, (rank, _), groups = analysis.compute(), ranks_and_logits(batch), token_groups(batch).numpy()
    here, there = (list(TOKEN_GROUPS).index(name) for name in ("object", "context"))
    for layer in range(3):
        score = 1 - rank[layer] / 7
        means = [(score[i][groups[i, here]].mean(), score[i][groups[i, there]].mean()) for i in (0, 2, 3, 4, 5)]
        of_object, of_context = zip(*means, strict=True)
        expected = permutation_test(of_object, of_context, paired=True, n_resamples=99, seed=3)
        found = row(table, "identifiability", layer, "patch", "object_minus_context")
        assert (found["value"], found["p_value"]) == pytest.approx((expected.difference, expected.p_value))
        assert found["low"] <= found["value"] <= found["high"]
        assert found["n_images"] == 5
        counts = [np.bincount(rank[layer][groups[:, one]], minlength=7) for one in (here, there)]
        pooled = pooled_permutation_test(*counts, 1 - np.arange(7) / 7, n_resamples=99, seed=3)
        found = row(table, "identifiability_pooled", layer, "patch", "object_minus_context")
        assert (found["value"], found["p_value"]) == pytest.approx((pooled.difference, pooled.p_value))
        assert found["value"] == pytest.approx(score[groups[:, here]].mean() - score[groups[:, there]].mean())


def test_functions_agree_with_the_loop(kind):
    batch = batch_of(kind, [Identifiability()])
    layout, (rank, logit) = batch.model.token_layout, ranks_and_logits(batch)
    p = project(batch.model, batch.cache, "resid_post", batch.labels)
    assert p.rank is not None
    assert p.label_logit is not None
    assert identifiability(p.rank, 7).numpy() == pytest.approx(1 - rank / 7)
    of_patches, rates = rank[:, :, layout.patches], identifiability_rate(p.rank, layout)
    assert rates.patches.tolist() == pytest.approx([100 * np.mean(one == 0) for one in of_patches])
    assert rates.images.tolist() == pytest.approx([100 * np.mean([(i == 0).any() for i in one]) for one in of_patches])
    rising = logit[1:, :, layout.patches] > logit[:-1, :, layout.patches]
    assert change_rate(p.label_logit, layout).tolist() == pytest.approx(rising.mean(axis=(1, 2)).tolist())


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_merge_to_one_pass(order):
    whole, merged = whole_and_merged(lambda: Identifiability(resampling=Resampling(50)), "distilled", order)
    pd.testing.assert_frame_equal(merged.compute(), whole.compute(), check_exact=True)
    pd.testing.assert_frame_equal(merged.images(), whole.images(), check_exact=True)


def test_images_have_their_own_rows():
    analysis = Identifiability()
    batch = batch_of("gap_registers_layerscale", [analysis], index=[4, 0, 1])
    analysis.update(batch)
    images, (rank, _), groups = analysis.images(), ranks_and_logits(batch), token_groups(batch).numpy()
    place = list(TOKEN_GROUPS).index("context")
    of_context = images.query("layer == 2 and region == 'context'").set_index("index")
    assert of_context.index.tolist() == [0, 4]  # image 1 shows none
    ranks = rank[2, 0][groups[0, place]]
    assert of_context.loc[4, "identifiability"] == pytest.approx(np.mean(1 - ranks / 7))
    assert of_context.loc[4, "identifiability_rate"] == pytest.approx(100 * np.mean(ranks == 0))
    assert of_context.loc[4, "n_tokens"] == len(ranks)


def test_a_sweep_can_write_the_rows_of_images():
    both = [Identifiability(), ImageIdentifiability()]
    for analysis in both:
        analysis.update(batch_of("cls", both))
    pd.testing.assert_frame_equal(both[1].compute(), both[0].images())


def test_another_stream():
    analysis = Identifiability("attn_out")
    batch = batch_of("cls", [analysis])
    analysis.update(batch)
    rank = project(batch.model, batch.cache, "attn_out", batch.labels).rank
    assert rank is not None
    expected = identifiability(rank[1, :, batch.model.token_layout.patches], 7).mean()
    table = analysis.compute()
    assert set(table["stream"]) == {"attn_out"}
    assert row(table, "identifiability", 1, "patch", "all")["value"] == pytest.approx(float(expected))


def test_a_single_image_without_mask_has_no_intervals_and_no_differences():
    analysis = Identifiability()
    analysis.update(batch_of("cls", [analysis], index=[0], masks=False))
    table = analysis.compute()
    assert table["low"].isna().all()
    assert set(table["region"]) == {"all"}
    assert table["value"].notna().all()


def test_it_is_reexported():
    from analyses.analysis import null_control

    assert compare_with_null is null_control.compare_with_null


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_errors_say_what_is_wrong(bad_input):
    layout = TokenLayout(1, 0, 0, (2, 2))
    with pytest.raises(ValueError, match=r"ranks from 0 to 6, got 0 to 7"):
        identifiability(torch.tensor([0, 7]), 7)
    with pytest.raises(ValueError, match=r"expected 5 tokens in the last axis, got shape \(3, 2, 4\)"):
        identifiability_rate(torch.zeros(3, 2, 4, dtype=torch.int64), layout)
    with pytest.raises(ValueError, match="not defined for single heads: pass 'attn_out'"):
        Identifiability("result")
    with pytest.raises(ValueError, match="no image was seen"):
        Identifiability().compute()
