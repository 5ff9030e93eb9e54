"""Compositionality over a dataset, against the function for every k."""

import pandas as pd
import pytest
from analysis_batches import batch_of

from analyses.analysis.groups import TOKEN_GROUPS, token_groups
from analyses.memory_pairs.composition import Compositionality
from analyses.memory_pairs.pairs import compositionality
from analyses.statistics import Resampling


def test_every_mean_matches_the_function(kind):
    analysis = Compositionality(ks=[1, 4, 13], resampling=Resampling(9))
    batch = batch_of(kind, [analysis], index=range(3))
    analysis.update(batch)
    table, groups = analysis.compute(), token_groups(batch)
    for sublayer, coefficients, column in (("mlp", "pre", "pre"), ("mlp", "post", "post"), ("attn", "pre", "z")):
        for k in (1, 4, 13):
            none = compositionality(batch.model, batch.cache, sublayer, k, coefficients).float()
            rows = table[(table["stream"] == f"{sublayer}_out") & (table["coefficients"] == column) & (table["k"] == k)]
            for i, (token_type, region) in enumerate(TOKEN_GROUPS.values()):
                member = groups[:, i]
                selected = rows[
                    (rows["token_type"] == token_type) & (rows["region"] == region) & (rows["images"] == "all")
                ]
                expected = [100 * none[layer][member].mean().item() for layer in range(3)] if member.any() else []
                for metric, values in (("compositionality", expected), ("single_memory", [100 - v for v in expected])):
                    assert selected[selected["metric"] == metric]["value"].tolist() == pytest.approx(values, abs=1e-3)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_shards_merge_to_one_pass():
    whole, shards = (
        Compositionality(resampling=Resampling(20)),
        [Compositionality(resampling=Resampling(20)) for _ in range(2)],
    )
    for shard, index in zip(shards, ([3, 4], [0, 1, 2]), strict=True):
        batch = batch_of("post_norm", [whole], index=index)
        whole.update(batch)
        shard.update(batch)
    merged = Compositionality(resampling=Resampling(20))
    for shard in reversed(shards):
        merged.merge_state(shard)
    pd.testing.assert_frame_equal(merged.compute(), whole.compute(), check_exact=True)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_errors():
    with pytest.raises(ValueError, match="no image was seen"):
        Compositionality().compute()
    with pytest.raises(ValueError, match=r"expected numbers of memories from 1 on, such as ks=\(1, 5\), got \[0\]"):
        Compositionality(ks=[0])
