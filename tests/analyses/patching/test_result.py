"""A sweep's numbers as an array, a table and a grid; and the comparison of two sweeps."""

import numpy as np
import pytest
import torch
from conftest import ported
from scipy import stats

from analyses.patching.plan import plan_patches
from analyses.patching.result import PatchResult, agreement, as_result, check_direction
from hooked_vit import TokenLayout

LAYOUT = TokenLayout(n_cls=1, n_dist=0, n_registers=1, grid=(2, 3))


def result_of(values: torch.Tensor, **changes: object) -> PatchResult:
    fields = {
        "stream": "resid_pre", "direction": "denoising", "axes": ("layer", "token"),
        "labels": {"layer": (0, 4), "token": (0, 2, 3, 7)}, "values": values, "base": torch.tensor(1.0),
        "source": torch.tensor(5.0), "layout": LAYOUT, **changes,
    }  # fmt: skip
    return PatchResult(**fields)


VALUES = torch.tensor([[1.0, 2.0, 3.0, 5.0], [0.0, 1.0, 1.0, 9.0]])


def test_effects_and_labels() -> None:
    result = result_of(VALUES)
    assert result.effect[0].tolist() == [0, 1, 2, 4]
    assert result.recovered.tolist() == [[0, 0.25, 0.5, 1], [-0.25, 0, 0, 2]]
    assert result.at(layer=4, token=7) == 9
    assert result.at(token=3).tolist() == [3, 1]
    with pytest.raises(ValueError, match="no layer 1 in this sweep: it has 0, 4"):
        result.at(layer=1)
    with pytest.raises(ValueError, match="expected axes out of layer, token, got 'head'"):
        result.at(head=1)


def test_the_grid() -> None:
    grid = result_of(VALUES).on_grid("values")
    expected = torch.full((2, 2, 3), float("nan"))
    expected[:, 0, 0], expected[:, 0, 1], expected[:, 1, 2] = VALUES[:, 1], VALUES[:, 2], VALUES[:, 3]
    torch.testing.assert_close(grid, expected, equal_nan=True)
    heads = result_of(VALUES, axes=("layer", "head"), labels={"layer": (0, 4), "head": (0, 1, 2, 3)})
    with pytest.raises(ValueError, match="only a sweep over tokens has a grid, and this one is over layer, head"):
        heads.on_grid()


def test_the_table() -> None:
    table = result_of(VALUES).table()
    assert len(table) == 8
    row = table.iloc[7]
    assert row[["layer", "token", "token_type", "row", "column", "value", "recovered"]].tolist() == [
        4, 7, "patch", 1, 2, 9.0, 2.0,
    ]  # fmt: skip
    assert table["token_type"].tolist()[:2] == ["cls", "patch"]
    assert table["row"].isna().tolist()[:2] == [True, False]


def test_agreement() -> None:
    x, y = result_of(VALUES), result_of(VALUES.square() - VALUES)
    found = agreement(x, y)
    assert found.pearson == pytest.approx(np.corrcoef(x.effect.flatten(), y.effect.flatten())[0, 1])
    assert found.spearman == pytest.approx(stats.spearmanr(x.effect.flatten(), y.effect.flatten())[0])
    assert found.mean_absolute_difference == pytest.approx((x.effect - y.effect).abs().mean().item())
    assert agreement(x, x).pearson == pytest.approx(1)
    assert np.isnan(agreement(x, result_of(torch.ones(2, 4))).pearson)
    with pytest.raises(ValueError, match=r"expected two sweeps over the same patches, got 'resid_pre' \(denoising\)"):
        agreement(x, result_of(VALUES, stream="resid_mid"))


def test_a_plans_values_get_named_axes() -> None:
    model = ported("cls")
    plan = plan_patches(model.cfg, "z", n_tokens=13, n_images=2, layers=[0, 2], tokens=[1, 5])
    base, source = torch.zeros(2), torch.ones(2)
    values = torch.arange(24.0).view(2, 6, 2)  # layer, cell (head by head, within each the tokens), image
    result = as_result(plan, "noising", model, values, base, source)
    assert (result.stream, result.direction, result.layout) == ("z", "noising", model.token_layout)
    assert result.axes == ("layer", "head", "token", "image")
    assert result.labels == {"layer": (0, 2), "head": (0, 1, 2), "token": (1, 5), "image": (0, 1)}
    for layer, head, token in ((0, 0, 0), (1, 2, 1), (1, 0, 1)):
        found = result.at(layer=(0, 2)[layer], head=head, token=(1, 5)[token])
        assert torch.equal(found, values[layer, 2 * head + token])
    mean = as_result(plan, "noising", model, values.mean(-1), base.mean(), source.mean())
    assert (mean.axes, mean.values.shape) == (("layer", "head", "token"), (2, 3, 2))


def test_directions() -> None:
    check_direction("denoising")
    check_direction("noising")
    with pytest.raises(ValueError, match="expected direction 'denoising' or 'noising', got 'both'"):
        check_direction("both")
