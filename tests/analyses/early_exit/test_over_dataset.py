"""The sweep analysis: its curve is that of real runs, areas and calibration are loops, and shards merge."""

import tracemalloc

import numpy as np
import pytest
import torch
from analysis_batches import batch_of, whole_and_merged
from conftest import ported
from torch import Tensor

from analyses.early_exit import (
    EarlyExit,
    ExitRule,
    calibrate,
    early_exit_logits,
    exit_layers,
    fit_exit_probes,
    margin,
)
from analyses.early_exit.curves import depth_area, exit_curve
from analyses.statistics import Resampling
from analyses.sweep import sweep
from analyses.tuned_lens import fit_tuned_lens

N = 48
Items = list[tuple[Tensor, int]]


@pytest.fixture(scope="module")
def fitted() -> Items:
    """Images that lens and probes are fitted to."""
    generator = torch.Generator().manual_seed(9)
    return [(torch.randn(3, 32, 24, generator=generator), index % 7) for index in range(125)]


@pytest.fixture(scope="module")
def items() -> Items:
    """Images with the classes that the model says after its last or its middle block."""
    generator = torch.Generator().manual_seed(8)
    images = torch.randn(N, 3, 32, 24, generator=generator)
    model = ported("cls")
    with torch.no_grad():
        logits, cache = model.run_with_cache(images, names_filter="resid_post")
        middle = model.head_logits(cache["resid_post", 1])
    labels = torch.where(torch.arange(N) % 3 > 0, logits.argmax(-1), middle.argmax(-1)).tolist()
    return list(zip(images, labels, strict=True))


def parts(n: int, share: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: round(share * n)]), np.sort(order[round(share * n) :])


def test_the_curve_is_that_of_real_runs(items: Items, fitted: Items) -> None:
    model = ported("cls")
    lens, probes = fit_tuned_lens(model, fitted, tokens="read"), fit_exit_probes(model, fitted)
    analysis = EarlyExit(lens, probes, resampling=Resampling(19))
    table = sweep(model, items, [analysis], batch_size=7)["early_exit"]
    assert set(table["readout"]) == {"class_space", "tuned_lens", "probe"}
    _, tested = parts(N)
    images = torch.stack([items[i][0] for i in tested])
    labels = torch.tensor([items[i][1] for i in tested])
    for name, readout in analysis.readouts.items():  # noqa: B007  (used in queries)
        for measure in ("margin", "agreement"):
            curve = table.query("readout == @name and measure == @measure and point == 'curve'")
            assert curve["depth"].is_monotonic_increasing
            assert (curve["depth"].iloc[0], curve["depth"].iloc[-1]) == (1, 3)
            for _, row in curve.iloc[:: max(1, len(curve) // 4)].iterrows():
                run = early_exit_logits(model, images, ExitRule(row["threshold"], measure, readout))
                accuracy = 100 * float((run.class_logits.argmax(-1) == labels).double().mean())
                assert run.mean_depth == pytest.approx(row["depth"])
                assert accuracy == pytest.approx(row["value"])
                assert row["low"] <= row["value"] + 1e-9 <= row["high"] + 2e-9
    assert set(table["n_images"]) == {len(tested)}


def test_the_calibrated_row_is_chosen_on_the_other_images(items: Items) -> None:
    model = ported("cls")
    table = sweep(model, items, [EarlyExit(tolerance=5.0)])["early_exit"]
    chosen, tested = parts(N)
    images, labels = torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items])
    with torch.no_grad():
        logits, cache = model.run_with_cache(images, names_filter="resid_post")
        every = torch.stack([*(model.head_logits(cache["resid_post", layer]) for layer in range(2)), logits])
    threshold = calibrate(margin(every)[:, chosen], (every.argmax(-1) == labels)[:, chosen], tolerance=5.0)
    run = early_exit_logits(model, images[tested], ExitRule(threshold))
    right = run.class_logits.argmax(-1) == labels[tested]
    whole = logits.argmax(-1)[tested] == labels[tested]
    rows = table.query("measure == 'margin' and point == 'calibrated'").set_index("metric")["value"]
    assert rows["accuracy"] == pytest.approx(100 * float(right.double().mean()))
    assert rows["accuracy_change"] == pytest.approx(100 * float((right.double() - whole.double()).mean()))
    assert rows["depth"] == pytest.approx(run.mean_depth)


def test_fixed_depths_are_the_accuracy_of_each_block(items: Items) -> None:
    model = ported("cls")
    table = sweep(model, items, [EarlyExit()])["early_exit"]
    _, tested = parts(N)
    images, labels = torch.stack([items[i][0] for i in tested]), torch.tensor([items[i][1] for i in tested])
    _, cache = model.run_with_cache(images, names_filter="resid_post")
    fixed = table.query("measure == 'fixed' and point == 'curve'")
    for layer in range(3):
        right = model.head_logits(cache["resid_post", layer]).argmax(-1) == labels
        row = fixed.iloc[layer]
        assert (row["depth"], row["value"]) == (layer + 1, pytest.approx(100 * float(right.double().mean())))
    area = table.query("measure == 'fixed' and point == 'area'")["value"].iloc[0]
    values = fixed["value"].to_numpy()
    assert area == pytest.approx((values[0] / 2 + values[1] + values[2] / 2) / 2)


def test_area_is_the_mean_over_depth() -> None:
    rng = np.random.default_rng(3)
    depth, accuracy = np.sort(1 + 4 * rng.random(6)), 100 * rng.random(6)
    depth[0] = 1
    grid = np.linspace(1, 5, 400001)
    assert float(depth_area(depth, accuracy, 5)) == pytest.approx(np.interp(grid, depth, accuracy).mean(), abs=1e-2)
    assert depth_area(depth[None].repeat(2, 0), accuracy[None].repeat(2, 0), 5).shape == (2,)


def test_intervals_of_curve_and_area_are_those_of_a_loop_over_resamples() -> None:
    generator = torch.Generator().manual_seed(5)
    confidence, correct = (torch.rand(3, 23, generator=generator) for _ in range(2))
    correct, thresholds = correct < 0.6, torch.tensor([0.0, 0.3, 0.6, 0.9])
    rows = exit_curve(confidence, correct, thresholds, Resampling(60, level=0.8, seed=3))
    left = torch.stack([exit_layers(confidence, threshold) for threshold in thresholds.tolist()])
    rng, found = np.random.default_rng(3), []
    for _ in range(60):
        drawn = rng.integers(0, 23, 23)
        accuracy = [100 * correct[left[t, drawn], drawn].double().mean().item() for t in range(4)]
        depth = [left[t, drawn].double().mean().item() + 1 for t in range(4)]
        inside = sum((depth[t + 1] - depth[t]) * (accuracy[t] + accuracy[t + 1]) / 2 for t in range(3))
        found.append([*accuracy, (inside + accuracy[-1] * (3 - depth[-1])) / 2])
    for name, share in (("low", 0.1), ("high", 0.9)):
        np.testing.assert_allclose([row[name] for row in rows], np.quantile(found, share, axis=0), rtol=1e-9)


def test_memory_does_not_hold_all_resamples() -> None:
    n = 20_000
    confidence = torch.rand(2, n, generator=torch.Generator().manual_seed(5))
    tracemalloc.start()
    exit_curve(confidence, confidence < 0.5, torch.tensor([0.0, 0.5]), Resampling(999))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 999 * n * 8


def test_a_single_image_has_no_interval() -> None:
    rows = exit_curve(torch.rand(3, 1), torch.ones(3, 1, dtype=torch.bool), torch.tensor([0.0, 1.0]))
    assert all(row["value"] == 100 and np.isnan([row["low"], row["high"]]).all() for row in rows)


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale"])
def test_shards_merge(kind: str) -> None:
    whole, merged = whole_and_merged(lambda: EarlyExit(resampling=Resampling(9)), kind)
    assert whole.compute().equals(merged.compute())


def test_images_that_something_was_fitted_to_are_refused(items: Items) -> None:
    model = ported("cls")
    lens, probes = fit_tuned_lens(model, items, tokens="read"), fit_exit_probes(model, items)
    for given, what in ((EarlyExit(lens), "the lens"), (EarlyExit(probes=probes), "the probe of each block")):
        with pytest.raises(ValueError, match=f"{what} was fitted to images of this dataset"):
            sweep(model, items, [given])


def test_few_images_have_no_calibrated_row(items: Items) -> None:
    table = sweep(ported("cls"), items[:8], [EarlyExit()])["early_exit"]
    assert set(table["point"]) == {"curve", "area"}


def test_errors() -> None:
    with pytest.raises(ValueError, match="a share of the images, between 0 and 1, got 1"):
        EarlyExit(calibration=1.0)
    with pytest.raises(ValueError, match="from 0 to 100, got 101"):
        EarlyExit(tolerance=101)
    analysis = EarlyExit()
    with pytest.raises(ValueError, match="no image was seen"):
        analysis.compute()
    analysis.update(batch_of("cls", [analysis], index=[0]))
    with pytest.raises(ValueError, match="expected at least 2, got 1"):
        analysis.compute()
