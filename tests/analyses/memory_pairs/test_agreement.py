"""Key-value agreement over a dataset, against the definition for every image, block, token and class."""

import numpy as np
import pandas as pd
import pytest
import torch
from analysis_batches import batch_of
from conftest import make_timm

from analyses.analysis.base import AnalysisBatch
from analyses.analysis.groups import TOKEN_GROUPS, token_groups
from analyses.memory_pairs.agreement import KeyValueAgreement
from analyses.memory_pairs.coefficients import memory_coefficients
from analyses.memory_pairs.pairs import key_value_agreement
from analyses.statistics import Resampling
from analyses.value_vectors.vectors import value_logits
from hooked_vit import HookedViT


@pytest.mark.parametrize("source", range(3))
def test_every_mean_matches_the_definition(kind, source):
    sublayer, coefficients, column = (("mlp", "pre", "pre"), ("mlp", "post", "post"), ("attn", "pre", "z"))[source]
    analysis = KeyValueAgreement(k=3, resampling=Resampling(9))
    batch = batch_of(kind, [analysis], index=range(4))
    analysis.update(batch)
    table, groups = analysis.compute(), token_groups(batch)
    table = table[
        (table["stream"] == f"{sublayer}_out") & (table["coefficients"] == column) & (table["images"] == "all")
    ]
    by_class = torch.stack(
        [
            key_value_agreement(batch.model, batch.cache, torch.full((4,), c), sublayer, 3, coefficients)
            for c in range(7)
        ]
    ).float()
    agreement = by_class[batch.labels, :, torch.arange(4)].movedim(0, 1)
    logit = torch.zeros_like(agreement)
    mean_logit = torch.zeros_like(agreement)
    for layer in range(3):
        logits = value_logits(batch.model, layer, sublayer)
        keys = memory_coefficients(batch.model, batch.cache, layer, sublayer, coefficients)
        for image, token in np.ndindex(4, keys.shape[1]):
            activated = keys[image, token].topk(3).indices
            logit[layer, image, token] = logits[activated, batch.labels[image]].mean()
            mean_logit[layer, image, token] = logits[activated].mean()
    random = by_class.mean(0)
    expected = {
        "agreement_rate": 100 * agreement, "agreement_rate_random": 100 * random,
        "agreement_rate_above_random": 100 * (agreement - random), "class_logit": logit,
        "class_logit_random": mean_logit,
    }  # fmt: skip
    prefix_and_patches = groups[:, :4].any(1)
    kinds = {
        **{columns: groups[:, i] for i, columns in enumerate(TOKEN_GROUPS.values())},
        ("all", "all"): prefix_and_patches,
    }
    for (token_type, region), member in kinds.items():
        rows = table[(table["token_type"] == token_type) & (table["region"] == region)]
        assert rows.empty != bool(member.any())
        for metric, values in expected.items():
            for layer, value in rows[rows["metric"] == metric].set_index("layer")["value"].items():
                assert value == pytest.approx(values[layer][member].mean().item(), abs=1e-3)


def test_correct_and_wrong_images_are_compared():
    analysis = KeyValueAgreement(resampling=Resampling(99))
    batch = batch_of("cls", [analysis], index=range(6))
    analysis.update(batch)
    table = analysis.compute()
    correct = (batch.logits.argmax(-1) == batch.labels).numpy()
    assert 2 <= correct.sum() <= 4
    agreement = key_value_agreement(batch.model, batch.cache, batch.labels)[1].float().mean(-1).numpy()
    at = "layer == 1 and coefficients == 'pre' and token_type == 'all' and metric == 'agreement_rate'"
    row = table.query(f"{at} and images == 'correct_minus_wrong'").iloc[0]
    assert row["value"] == pytest.approx(100 * (agreement[correct].mean() - agreement[~correct].mean()), abs=1e-3)
    assert 0 < row["p_value"] <= row["p_adjusted"] <= 1


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_shards_merge_to_one_pass():
    whole, shards = (
        KeyValueAgreement(resampling=Resampling(20)),
        [KeyValueAgreement(resampling=Resampling(20)) for _ in range(2)],
    )
    for shard, index in zip(shards, ([3, 4], [0, 1, 2]), strict=True):
        batch = batch_of("distilled", [whole], index=index)
        whole.update(batch)
        shard.update(batch)
    merged = KeyValueAgreement(resampling=Resampling(20))
    for shard in reversed(shards):
        merged.merge_state(shard)
    pd.testing.assert_frame_equal(merged.compute(), whole.compute(), check_exact=True)


def test_an_edit_between_batches_is_noticed_and_no_weight_changes():
    model, analysis = (
        HookedViT.from_timm(make_timm("cls", 4)),
        KeyValueAgreement(["mlp"], ["pre"], resampling=Resampling(9)),
    )
    names, labels = analysis.names(model.cfg), torch.tensor([1, 2])

    def rate() -> pd.Series:
        with torch.no_grad():
            logits, cache = model.run_with_cache(torch.ones(2, 3, 32, 24), names_filter=names)
        analysis.reset()
        analysis.update(AnalysisBatch(model, cache, logits, labels, torch.arange(2)))
        table = analysis.compute()
        return table[(table["metric"] == "class_logit") & (table["images"] == "all")]["value"]

    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = rate()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        model.blocks[2].mlp.W_out.mul_(3)
    assert not first.equals(rate())


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_errors(bad_input):
    with pytest.raises(ValueError, match="no image was seen"):
        KeyValueAgreement().compute()
    with pytest.raises(ValueError, match="expected sublayer 'mlp' or 'attn', got 'head'"):
        KeyValueAgreement(["head"])  # pyright: ignore[reportArgumentType]
