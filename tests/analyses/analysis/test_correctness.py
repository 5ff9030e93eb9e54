"""Tables of all, correct and wrong images compared with means by hand; all tokens together count each token."""

import numpy as np
import pandas as pd
import pytest

from analyses.analysis.correctness import correctness_tables
from analyses.analysis.groups import TOKEN_GROUPS
from analyses.analysis.tables import GroupSums
from analyses.statistics.hypothesis_tests import permutation_test
from analyses.statistics.intervals import Resampling


def test_each_row_is_the_mean_by_hand():
    generator = np.random.default_rng(0)
    n_tokens = np.array([[1, 0, 2, 6, 4, 2], [1, 0, 2, 6, 6, 0], [1, 0, 2, 6, 1, 5], [1, 0, 2, 6, 3, 3]])
    sums = generator.random((4, 3, 6)) * n_tokens[:, None]
    sums[..., 3] = sums[..., 4] + sums[..., 5]
    correct = np.array([True, False, True, False])
    of = GroupSums.of_layers(sums, n_tokens, metric="mean", k=5)
    table = correctness_tables(of, correct, Resampling(50, seed=2))
    for images, chosen in (("all", [0, 1, 2, 3]), ("correct", [0, 2]), ("wrong", [1, 3])):
        for place, (token_type, region) in enumerate(TOKEN_GROUPS.values()):
            rows = table.query(f"images == '{images}' and token_type == '{token_type}' and region == '{region}'")
            if token_type == "dist":
                assert rows.empty
                continue
            expected = sums[chosen][..., place].sum(0) / n_tokens[chosen][:, place].sum()
            assert rows["value"].tolist() == pytest.approx(expected.tolist())
        together = table.query(f"images == '{images}' and token_type == 'all'")
        expected = sums[chosen][..., :4].sum((0, 2)) / (9 * len(chosen))
        assert together["value"].tolist() == pytest.approx(expected.tolist())
        assert set(together["n_tokens"]) == {9 * len(chosen)}
        assert set(together["k"]) == {5}
    difference = table.query("images == 'correct_minus_wrong' and token_type == 'all'")
    means = sums[..., :4].sum(-1) / 9
    for layer in range(3):
        test = permutation_test(means[correct, layer], means[~correct, layer], n_resamples=50, seed=2)
        row = difference[difference["layer"] == layer].iloc[0]
        assert (row["value"], row["p_value"]) == pytest.approx((test.difference, test.p_value))
    assert set(table.query("region == 'object_minus_context'")["n_images"]) == {3}


def test_images_that_are_all_correct_have_no_difference():
    n_tokens = np.array([[1, 0, 0, 2, 0, 0]] * 3)
    sums = GroupSums.of_layers(np.ones((3, 1, 6)) * n_tokens[:, None], n_tokens, metric="mean")
    table = correctness_tables(sums, np.ones(3, dtype=bool), Resampling(9))
    assert set(table["images"]) == {"all", "correct"}


def test_rows_of_all_tokens_are_optional():
    generator = np.random.default_rng(1)
    n_tokens = np.array([[1, 0, 0, 4, 1, 3]] * 4)
    sums = GroupSums.of_layers(generator.random((4, 2, 6)) * n_tokens[:, None], n_tokens, metric="mean")
    with_all, without = (
        correctness_tables(sums, np.array([True, False] * 2), Resampling(9), all_tokens=all_tokens)
        for all_tokens in (True, False)
    )
    kept = with_all[with_all["token_type"] != "all"].reset_index(drop=True)
    pd.testing.assert_frame_equal(without, kept)
