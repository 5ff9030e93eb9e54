"""Class-value agreement, against a loop over classes and value vectors; the test is scipy's."""

import pandas as pd
import pytest
import torch
from analysis_batches import model_of
from conftest import ported
from scipy import stats

from analyses.statistics import Resampling
from analyses.sweep.run import sweep
from analyses.value_vectors.alignment import ClassValueAgreement, class_value_agreement, compare_class_value_agreement
from analyses.value_vectors.vectors import read_by_head, value_vectors
from hooked_vit.initialisation import freshly_initialised


@pytest.mark.parametrize("sublayer", ["mlp", "attn"])
def test_matches_the_largest_cosine(kind, sublayer):
    model = model_of(kind)
    agreement = class_value_agreement(model, sublayer)
    assert agreement.shape == (3, 7)
    for layer in range(3):
        read = read_by_head(model, value_vectors(model, layer, sublayer))
        for label in range(7):
            cosines = [torch.nn.functional.cosine_similarity(row, model.W_U[:, label], dim=0).item() for row in read]
            assert float(agreement[layer, label]) == pytest.approx(max(cosines), abs=1e-5)


def test_the_comparison_matches_scipys_test_paired_by_class():
    model = model_of("cls")
    null = freshly_initialised(model, 5)
    table = compare_class_value_agreement(model, seed=5, resampling=Resampling(50, seed=5))
    assert len(table) == 6
    for sublayer in ("mlp", "attn"):
        ours, theirs = class_value_agreement(model, sublayer), class_value_agreement(null, sublayer)
        for layer in range(3):
            row = table.query(f"stream == '{sublayer}_out' and layer == {layer}").iloc[0]
            expected = stats.wilcoxon(
                ours[layer].double().numpy() - theirs[layer].double().numpy(), alternative="greater"
            )
            assert row["p_value"] == pytest.approx(expected.pvalue)
            assert (row["value"], row["null"]) == pytest.approx(
                (ours[layer].mean().item(), theirs[layer].mean().item())
            )
            assert row["low"] <= row["value"] <= row["high"]
            assert row["p_adjusted"] >= row["p_value"]


def test_a_given_null_model_must_match():
    model = model_of("cls")
    with pytest.raises(ValueError, match=r"as many \(blocks, classes\) as the model, \(3, 7\), got \(3, 2\)"):
        compare_class_value_agreement(model, null=model.with_class_embeddings(torch.ones(24, 2)))


def test_a_sweep_returns_the_comparison_of_its_model() -> None:
    model = ported("qk_norm")
    images = [(torch.randn(3, 32, 24, generator=torch.Generator().manual_seed(n)), n) for n in range(5)]
    table = sweep(model, images, [ClassValueAgreement(resampling=Resampling(19))], batch_size=2)[
        "class_value_agreement"
    ]
    expected = compare_class_value_agreement(model, resampling=Resampling(19))
    pd.testing.assert_frame_equal(table, expected)
