"""Perturbations over a dataset compared with per-image runs summed in a loop."""

import dataclasses
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from analysis_batches import batch_of, whole_and_merged

from analyses.analysis.base import AnalysisBatch
from analyses.analysis.groups import TOKEN_GROUPS, token_groups
from analyses.perturbation.attention import no_cls, self_only
from analyses.perturbation.over_dataset import Perturbation
from analyses.perturbation.runs import perturb_stream, region_mask
from analyses.statistics import Resampling
from analyses.statistics.hypothesis_tests import permutation_test


def runs_of(batch: AnalysisBatch) -> dict[str, list]:
    """Each image's own run under each default perturbation; `None` where it is not counted."""
    model, layout, runs = batch.model, batch.model.token_layout, {}
    before = batch.projection("resid_post").rank
    assert before is not None
    assert batch.object_mask is not None
    correct, tokens = batch.logits.argmax(-1) == batch.labels, batch.cache["hook_tokens"]
    cases = {"self_only": self_only, "no_context": "object", "no_object": "context"}
    if layout.cls is not None:
        cases["no_cls"] = no_cls
    for name, how in cases.items():
        runs[name] = []
        for i in range(len(tokens)):
            alone = tokens[[i]], batch.labels[[i]], before[:, [i]], correct[[i]]
            if callable(how):
                runs[name].append(perturb_stream(model, *alone, how(model), None))
                continue
            mask = region_mask(batch.object_mask[[i]], layout, how)
            some = mask[:, layout.patches].any() and not mask[:, layout.patches].all()
            runs[name].append(perturb_stream(model, *alone, (), mask) if some else None)
    return runs


def test_every_number_is_that_of_the_loop(kind):
    analysis = Perturbation(resampling=Resampling(30, seed=1))
    batch = batch_of(kind, [analysis], index=range(4))
    with torch.no_grad():
        analysis.update(batch)
        runs = runs_of(batch)
    table, groups = analysis.compute(), token_groups(batch)
    assert set(table["perturbation"]) == set(runs)
    for row in table[table["metric"] != "accuracy"].to_dict("records"):
        place, layer = list(TOKEN_GROUPS.values()).index((row["token_type"], row["region"])), int(row["layer"])
        before, after = [], []
        for i, run in enumerate(runs[row["perturbation"]]):
            member = groups[i, place] & (run.kept[0] if run else False)
            if member.any():
                before.append(1 - run.rank_before[layer, 0][member].numpy() / 7)
                after.append(1 - run.rank_after[layer, 0][member].numpy() / 7)
        if row["metric"] != "identifiability":
            before, after = ([100 * (image == 1) for image in one] for one in (before, after))
        means = [np.array([image.mean() for image in one]) for one in (before, after)]
        pooled = means if row["metric"].endswith("_of_images") else [np.concatenate(one) for one in (before, after)]
        assert (row["before"], row["after"]) == pytest.approx((pooled[0].mean(), pooled[1].mean()))
        assert row["value"] == pytest.approx(row["after"] - row["before"])
        assert row["n_images"] == len(before)
        assert row["n_tokens"] == sum(len(image) for image in before)
        if layer == 2 and row["token_type"] == "patch":
            expected = permutation_test(means[1], means[0], paired=True, n_resamples=30, seed=1)
            assert row["p_value"] == pytest.approx(expected.p_value)
    for row in table[table["metric"] == "accuracy"].to_dict("records"):
        counted = [run for run in runs[row["perturbation"]] if run]
        expected = [100 * np.mean([bool(one) for one in flags]) for flags in (
            [run.correct_before for run in counted], [run.correct_after for run in counted])]  # fmt: skip
        assert (row["before"], row["after"]) == pytest.approx(tuple(expected))
        assert row["n_images"] == len(counted)


def test_all_patches_that_show_some_of_the_object_can_be_dropped():
    analysis = Perturbation({}, removals=["touched"], resampling=Resampling(30))
    batch = batch_of("cls", [analysis], index=range(4))
    layout, mask = batch.model.token_layout, torch.zeros(4, 32, 24, dtype=torch.bool)
    mask[:, 5:14, 3:20] = True  # the top left pixel of two patches, some pixel of six
    batch = dataclasses.replace(batch, object_mask=mask)
    with torch.no_grad():
        analysis.update(batch)
    keep = torch.ones(4, 13, dtype=torch.bool)
    keep[:, [layout.patch_token(row, column) for row in (0, 1) for column in (0, 1, 2)]] = False
    before = batch.projection("resid_post").rank
    run = perturb_stream(batch.model, batch.cache["hook_tokens"], batch.labels, before, batch.labels == 0, (), keep)
    rows = analysis.compute().query("metric == 'identifiability' and token_type == 'patch' and region == 'all'")
    assert set(rows["perturbation"]) == {"no_touched"}
    assert set(rows["n_tokens"]) == {4 * 6}
    expected = 1 - run.rank_after[:, :, layout.patches][:, keep[:, layout.patches]].double().mean(dim=1) / 7
    assert rows["after"].tolist() == pytest.approx(expected.tolist())


def test_removals_leave_out_images_with_a_single_region():
    analysis = Perturbation({}, resampling=Resampling(30))
    analysis.update(batch_of("cls", [analysis], index=range(4)))  # image 1 shows no context
    assert set(analysis.compute()["n_images"]) == {3}


def test_nothing_to_perturb_gives_an_empty_table():
    analysis = Perturbation({})
    analysis.update(batch_of("cls", [analysis], masks=False))
    assert analysis.compute().empty


def test_chosen_interventions_alone():
    analysis = Perturbation(
        {"late": partial(self_only, blocks=[2]), "none": lambda model: []}, resampling=Resampling(30)
    )
    analysis.update(batch_of("qk_norm", [analysis], masks=False))
    table = analysis.compute()
    assert table["perturbation"].unique().tolist() == ["late", "none"]
    changed = table[table["value"] != 0]
    assert set(changed["perturbation"]) == {"late"}
    assert set(changed["layer"].dropna()) == {2}


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_shards_merge_to_one_pass():
    whole, merged = whole_and_merged(lambda: Perturbation(resampling=Resampling(30)), "cls")
    pd.testing.assert_frame_equal(merged.compute(), whole.compute(), check_exact=True)


def test_a_single_image_has_no_tests():
    analysis = Perturbation(resampling=Resampling(30))
    analysis.update(batch_of("cls", [analysis], index=[0]))
    table = analysis.compute()
    assert table["p_value"].isna().all()
    assert table["value"].notna().all()


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_errors_say_what_is_wrong(bad_input):
    for wrong in ("context", ["context", "background"]):
        with pytest.raises(ValueError, match="removals out of 'context', 'object', 'touched', got "):
            Perturbation(removals=wrong)
    with pytest.raises(ValueError, match="several perturbations are called no_context: give each its own name"):
        Perturbation({"no_context": self_only})
    with pytest.raises(ValueError, match="no image was seen"):
        Perturbation().compute()
    analysis = Perturbation({"no_cls": no_cls})
    batch = batch_of("post_norm", [analysis])
    with pytest.raises(ValueError, match="the model has no cls token"):
        analysis.update(batch)
