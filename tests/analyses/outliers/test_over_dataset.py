"""The sweep analysis equals a loop over images and tokens, merges to the bit, and pairs images with the control."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.analysis import compare_with_null
from analyses.outliers import Outliers, outlier_names, outlier_scores
from analyses.sweep import sweep
from hooked_vit import HookedViT
from hooked_vit.initialisation import freshly_initialised

Items = list[tuple[Tensor, int, Tensor]]
THRESHOLD = 1.1


@pytest.fixture(scope="module")
def items() -> Items:
    """Five images with masks."""
    generator, found = torch.Generator().manual_seed(7), []
    for index, label in enumerate([3, 0, 3, 5, 1]):
        mask = torch.zeros(32, 24, dtype=torch.bool)
        mask[3 + index : 19 + index, 2 : 13 + 2 * index] = True
        found.append((torch.randn(3, 32, 24, generator=generator), label, mask))
    return found


@torch.no_grad()
def by_loop(model: HookedViT, items: Items, tokens: slice) -> dict[tuple[int, str], float]:
    """Every number of a kind of token, from the tokens of each image."""
    found = {}
    for layer in range(3):
        rows: dict[str, list[float]] = {}
        for image, _, _ in items:
            _, cache = model.run_with_cache(image[None])
            scores = outlier_scores(model, cache, THRESHOLD)
            ratios = scores.norm_ratio[layer, 0, tokens]
            stream = cache["resid_pre", layer][0].norm(dim=-1)
            entering = stream > THRESHOLD * np.median(stream[model.token_layout.patches].numpy())
            rows.setdefault("norm_ratio", []).append(float(ratios.mean()))
            rows.setdefault("outlier_rate", []).append(100 * float((ratios > THRESHOLD).float().mean()))
            rows.setdefault("largest_norm_ratio", []).append(float(ratios.max()))
            rows.setdefault("images_with_outlier", []).append(100.0 * bool((ratios > THRESHOLD).any()))
            attention = scores.attention[layer, 0]
            rows.setdefault("attention", []).append(100 * float(attention[tokens].sum()))
            rows.setdefault("attention_to_outliers", []).append(100 * float((attention * entering)[tokens].sum()))
            if model.token_layout.cls is not None:
                row = cache["pattern", layer][0, :, 0].mean(0)
                rows.setdefault("cls_attention", []).append(100 * float(row[tokens].sum()))
        found |= {(layer, metric): float(np.mean(values)) for metric, values in rows.items()}
    return found


@pytest.mark.parametrize("kind_name", ["cls", "gap_registers_layerscale"])
def test_numbers_are_those_of_a_loop(kind_name: str, items: Items) -> None:
    model = ported(kind_name)
    table = sweep(model, items, [Outliers(THRESHOLD)], batch_size=2)["outliers"]
    kinds = {"patch": model.token_layout.patches}
    kinds |= {"cls": slice(0, 1)} if model.cfg.has_cls else {"register": model.token_layout.registers}
    for token_type, tokens in kinds.items():
        expected = by_loop(model, items, tokens)
        rows = table.query("token_type == @token_type and region == 'all'").set_index(["layer", "metric"])
        assert set(rows.index) == set(expected)
        for place, value in expected.items():
            assert float(rows.loc[place, "value"]) == pytest.approx(value, abs=1e-3), (token_type, place)
    assert (table["low"] <= table["value"] + 1e-6).all()
    assert (table["value"] <= table["high"] + 1e-6).all()
    regions = table.query("metric == 'attention' and token_type == 'patch'").pivot(
        index="layer", columns="region", values="value"
    )
    np.testing.assert_allclose(regions["object"] + regions["context"], regions["all"], rtol=1e-5)


def test_batches_merge_and_images_pair_with_the_control(items: Items) -> None:
    model = ported("cls")
    whole, parts = Outliers(), Outliers()
    tables = [sweep(model, items, [a], batch_size=n)["outliers"] for a, n in ((whole, 5), (parts, 1))]
    np.testing.assert_allclose(tables[0]["value"], tables[1]["value"], rtol=1e-4)
    null = Outliers()
    sweep(freshly_initialised(model, seed=0), items, [null])
    compared = compare_with_null(whole, null, column="largest_norm_ratio")
    patches = compared.query("token_type == 'patch' and region == 'all'").set_index("layer")
    rows = tables[0].query("metric == 'largest_norm_ratio' and token_type == 'patch' and region == 'all'")
    np.testing.assert_allclose(patches["value"], rows.set_index("layer")["value"])


def test_attention_to_outliers_is_of_the_stream_that_enters(items: Items) -> None:
    model = ported("cls")
    found = Outliers(THRESHOLD)
    sweep(model, items, [found])
    images = found.images()
    patches = images[(images["token_type"] == "patch") & (images["region"] == "all")]
    per_image = pd.DataFrame(patches).set_index(["index", "layer"])
    _, cache = model.run_with_cache(items[2][0][None], names_filter=[*outlier_names(model.cfg), ("resid_pre", 0)])
    is_outlier = outlier_scores(model, cache, THRESHOLD).is_outlier[0, 0]
    is_outlier[0] = False
    received = cache["pattern", 1][0].mean((0, 1))
    expected = 100 * float(received[is_outlier].sum())
    assert expected > 0
    assert float(per_image.loc[(2, 1), "attention_to_outliers"]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    with pytest.raises(ValueError, match="expected a threshold above 1"):
        Outliers(0.5)
    with pytest.raises(ValueError, match="no image was seen"):
        Outliers().compute()
    # as many patches, on another grid
    items = [(torch.randn(3, 24, 32), 1)] * 2
    with pytest.raises(ValueError, match=r"model's own size, 32 × 24 pixels, got 24 × 32: resize them, or load the "):
        sweep(ported("dynamic"), items, [Outliers()])
