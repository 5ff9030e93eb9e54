"""Categorical updates over a dataset compared with a loop over blocks, images and tokens."""

import pandas as pd
import pytest
from analysis_batches import batch_of, whole_and_merged
from categorical_updates_by_hand import BOTH, STREAMS, composition_of, increase_of

from analyses.analysis.groups import TOKEN_GROUPS, token_groups
from analyses.categorical_updates.measures import similarity_increase
from analyses.categorical_updates.over_dataset import CategoricalUpdates
from analyses.statistics import Resampling
from analyses.statistics.hypothesis_tests import permutation_test


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
              for h in range(batch.model.cfg.n_heads)),
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
    assert checked == 3 * n_groups * n_sets * (2 * 2 * (3 + batch.model.cfg.n_heads) + 4)


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
    whole, merged = whole_and_merged(lambda: CategoricalUpdates(resampling=Resampling(30)), "qk_norm")
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
    for wrong in ("block_input", (), ("block_input", "input")):
        with pytest.raises(ValueError, match="references out of 'block_input', 'layer_input', got "):
            CategoricalUpdates(wrong)
    with pytest.raises(ValueError, match="no image was seen"):
        CategoricalUpdates().compute()
