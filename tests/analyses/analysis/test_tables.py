"""Rows of tables compared with sums over images written out."""

import numpy as np
import pandas as pd
import pytest

from analyses.analysis.groups import TOKEN_GROUPS
from analyses.analysis.tables import GroupSums, difference_rows, object_minus_context, ratio_rows
from analyses.statistics.corrections import adjust_p_values
from analyses.statistics.hypothesis_tests import permutation_test
from analyses.statistics.intervals import Resampling


@pytest.fixture
def counted() -> tuple[np.ndarray, np.ndarray]:
    """Sums [image layer group] and tokens [image group]; no registers, one image without context."""
    generator = np.random.default_rng(0)
    n_tokens = generator.integers(1, 9, (5, 6))
    n_tokens[:, 2], n_tokens[3, 5] = 0, 0
    return generator.integers(0, 9, (5, 4, 6)) * (n_tokens[:, None] > 0), n_tokens


def test_a_row_for_each_layer_and_group_with_tokens(counted):
    sums, n_tokens = counted
    table = ratio_rows(GroupSums.of_layers(sums, n_tokens, first_layer=3, metric="mean"), Resampling())
    assert len(table) == 4 * 5
    for place, (token_type, region) in enumerate(TOKEN_GROUPS.values()):
        for layer in range(4):
            row = table.query(f"layer == {3 + layer} and token_type == '{token_type}' and region == '{region}'")
            if token_type == "register":
                assert row.empty
                continue
            (row,) = row.to_dict("records")
            assert row["value"] == pytest.approx(sums[:, layer, place].sum() / n_tokens[:, place].sum())
            assert row["low"] <= row["value"] <= row["high"]
            assert row["n_images"] == (4 if place == 5 else 5)
            assert row["n_tokens"] == n_tokens[:, place].sum()
            assert row["metric"] == "mean"


def test_parts_keep_their_rows_and_counts(counted):
    sums, n_tokens = counted
    present = np.broadcast_to(n_tokens[:, None] > 0, sums.shape).astype(np.int64)
    parts = [
        GroupSums.of_layers(sums, n_tokens, metric="a"),
        GroupSums.of_layers(sums[:, 1:], n_tokens, first_layer=1, counts=present[:, 1:], metric="b"),
    ]
    together = ratio_rows(GroupSums.stack(parts), Resampling())
    apart = pd.concat([ratio_rows(part, Resampling()) for part in parts])
    keys = ["metric", "token_type", "region", "layer"]
    pd.testing.assert_frame_equal(
        together.sort_values(keys, ignore_index=True), apart.sort_values(keys, ignore_index=True)
    )
    context = together.query("metric == 'b' and region == 'context' and layer == 2")
    assert context["value"].item() == pytest.approx(sums[:, 2, 5].sum() / 4)


@pytest.mark.parametrize("paired", [True, False])
def test_differences_are_tested_row_by_row(paired):
    generator = np.random.default_rng(1)
    a, b = generator.normal(0.5, 1, (8, 3)), generator.normal(0, 1, (8 if paired else 6, 3))
    rows = pd.DataFrame({"layer": [1, 2, 2], "metric": ["m", "m", "other"]})
    table = difference_rows(a, b, rows, Resampling(n_resamples=99, seed=4), paired=paired)
    pd.testing.assert_frame_equal(table[["layer", "metric"]], rows)
    for step, row in enumerate(table.to_dict("records")):
        expected = permutation_test(a[:, step], b[:, step], paired=paired, n_resamples=99, seed=4)
        assert (row["value"], row["p_value"]) == pytest.approx((expected.difference, expected.p_value))
        assert row["effect_size"] == pytest.approx(expected.effect_size)
        assert row["n_images"] == (8 if paired else 14)
        assert row["low"] < row["value"] < row["high"]
    assert table["p_adjusted"][2] == table["p_value"][2]
    assert table["p_adjusted"][:2].tolist() == adjust_p_values(table["p_value"][:2].to_numpy()).tolist()
    assert difference_rows(a[:1], b, rows, Resampling(), paired=False).empty


def test_regions_are_paired_within_images(counted):
    sums, n_tokens = counted
    of = GroupSums.of_layers(sums, n_tokens, metric="m")
    table = object_minus_context(of, Resampling())
    differences = []
    for image in (0, 1, 2, 4):
        differences.append(sums[image, :, 4] / n_tokens[image, 4] - sums[image, :, 5] / n_tokens[image, 5])
    assert table["value"].tolist() == pytest.approx(np.mean(differences, axis=0).tolist())
    assert set(table["region"]) == {"object_minus_context"}
    assert set(table["n_images"]) == {4}
    assert set(table["n_tokens"]) == {n_tokens[[0, 1, 2, 4]][:, 4:].sum()}
    assert object_minus_context(of.of_images([0]), Resampling()).empty
