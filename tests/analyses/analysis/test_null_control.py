"""The comparison with the null control compared with scipy, block by block."""

import numpy as np
import pandas as pd
import pytest
from analysis_batches import batch_of
from scipy import stats

from analyses.analysis.null_control import compare_with_null
from analyses.identifiability import Identifiability


@pytest.fixture
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-image tables of seven images, of two models."""
    both = []
    for kind in ("cls", "qk_norm"):
        analysis = Identifiability()
        analysis.update(batch_of(kind, [analysis], index=range(7)))
        both.append(analysis.images())
    return both[0], both[1]


def test_each_block_and_kind_of_token_is_tested(tables):
    measured, null = tables
    compared = compare_with_null(measured, null.sample(frac=1, random_state=0))
    for row in compared.to_dict("records"):
        x, y = (
            one.query(
                f"layer == {row['layer']} and token_type == '{row['token_type']}' and region == '{row['region']}'"
            )
            .sort_values("index")["identifiability"]
            .to_numpy()
            for one in (measured, null)
        )
        assert (row["value"], row["null"]) == pytest.approx((x.mean(), y.mean()))
        expected = stats.wilcoxon(x, y, alternative="greater").pvalue if np.any(x != y) else 1.0
        assert row["p_value"] == pytest.approx(expected)
        assert row["n_images"] == len(x)
    of_patches = compared.query("token_type == 'patch' and region == 'all'")
    order, worst = of_patches["p_value"].sort_values(), 0.0
    for step, (place, p_value) in enumerate(order.items()):
        worst = max(worst, (len(order) - step) * p_value)
        assert of_patches.loc[place, "p_adjusted"] == pytest.approx(min(1, worst))


def test_the_analysis_can_be_passed_itself(tables):
    analysis = Identifiability()
    analysis.update(batch_of("cls", [analysis], index=range(7)))
    pd.testing.assert_frame_equal(compare_with_null(analysis, tables[1]), compare_with_null(*tables))


def test_another_column(tables):
    compared = compare_with_null(*tables, column="identifiability_rate")
    assert set(compared["metric"]) == {"identifiability_rate"}
    cls = tables[0].query("layer == 2 and token_type == 'cls'")["identifiability_rate"]
    assert compared.query("layer == 2 and token_type == 'cls'")["value"].item() == pytest.approx(cls.mean())


def test_a_model_against_itself_is_no_different(tables):
    compared = compare_with_null(tables[0], tables[0])
    assert (compared["p_value"] == 1).all()
    assert (compared["rank_biserial"] == 0).all()


def test_a_single_image_has_no_test(tables):
    compared = compare_with_null(*(one[one["index"] == 0] for one in tables))
    assert compared["p_value"].isna().all()
    assert compared["p_adjusted"].isna().all()
    assert compared["value"].notna().all()


def test_different_images_are_refused(tables):
    measured, null = tables
    with pytest.raises(ValueError, match="in common: run both over one dataset"):
        compare_with_null(measured, null[null["index"] != 3])
