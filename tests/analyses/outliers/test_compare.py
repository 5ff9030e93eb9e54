"""The effect of registers is the difference of separate runs, and that of planted outliers is what was planted."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ported
from planted_outliers import LAYER, NEURONS, planted_outliers

from analyses.analysis.tables import rows_where
from analyses.outliers import Outliers, compare_registers
from analyses.outliers.compare import random_neurons
from analyses.projection import project
from analyses.segmentation import Segmentation, segmentation_map
from analyses.segmentation.over_dataset import image_groups
from analyses.statistics import Resampling, bootstrap_of_sums
from analyses.sweep import sweep
from hooked_vit.interventions import move_neurons

FEW = Resampling(49)


@pytest.fixture(scope="module")
def items() -> list:
    """The images of a planted model, with masks on the marked patches' half of the picture."""
    planted = planted_outliers("cls")
    mask = torch.zeros(32, 24, dtype=torch.bool)
    mask[4:20, :16] = True
    return [(image, label % 7, mask) for label, image in enumerate(planted.images)]


@pytest.fixture(scope="module")
def table(items: list) -> pd.DataFrame:
    """The effect of moving the planted neurons."""
    return compare_registers(planted_outliers("cls").model, items, {LAYER: NEURONS}, batch_size=2, resampling=FEW)


def test_numbers_are_those_of_separate_sweeps(items: list, table: pd.DataFrame) -> None:
    model = planted_outliers("cls").model
    assert list(dict.fromkeys(table["condition"])) == ["registers", "moved", "random"]
    more = model.with_registers()
    tables = [
        sweep(m, items, [Outliers(), Segmentation()], fwd_hooks=hooks)
        for m, hooks in ((model, ()), (more, move_neurons(more, {LAYER: NEURONS})))
    ]
    moved = table[table["condition"] == "moved"]
    for time, found in zip(("before", "after"), tables, strict=True):
        accuracy = moved[moved["metric"] == "accuracy"]
        assert float(accuracy[time].iloc[0]) == pytest.approx(float(found["accuracy"]["top1"].iloc[0]))
        for metric in ("attention", "images_with_outlier", "cls_attention"):
            for token_type in ("cls", "patch"):
                where = {"metric": metric, "token_type": token_type, "region": "all"}
                expected = rows_where(found["outliers"], where)["value"]
                np.testing.assert_allclose(rows_where(moved, where)[time], expected, rtol=1e-4, atol=1e-3)
        for metric in ("object_iou", "mean_iou"):
            expected = rows_where(found["segmentation"], {"metric": metric})["value"]
            np.testing.assert_allclose(rows_where(moved, {"metric": metric})[time], expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(moved["value"], moved["after"] - moved["before"])
    bounded = moved[moved["low"].notna()]
    assert len(bounded) > 20
    assert ((bounded["low"] <= bounded["value"] + 1e-6) & (bounded["value"] <= bounded["high"] + 1e-6)).all()
    registers = moved[moved["token_type"] == "register"]
    assert len(registers)
    assert registers["before"].isna().all()
    assert registers["after"].notna().all()


def test_planted_outliers_leave_the_patches_and_random_neurons_leave_them_there(table: pd.DataFrame) -> None:
    rows = table.query("metric == 'images_with_outlier' and token_type == 'patch' and region == 'all'")
    after = rows[rows["layer"] == LAYER].set_index("condition")["after"]
    assert after.to_dict() == {"registers": 100, "moved": 0, "random": 100}


def test_without_masks_there_is_no_segmentation(items: list) -> None:
    table = compare_registers(ported("cls"), [item[:2] for item in items], {0: [1]}, resampling=FEW)
    assert not set(table["metric"]) & {"object_iou", "pixel_accuracy", "mean_iou"}
    assert "accuracy" in set(table["metric"])


def mean_iou_by_loop(counts: np.ndarray) -> float:
    """In percent, of counts [count n_classes], one class at a time."""
    ious = [100 * hits / (predicted + target - hits) for hits, predicted, target in counts.T if target]
    return sum(ious) / len(ious)


@torch.no_grad()
def test_the_interval_of_mean_iou_pairs_groups_of_images(items: list, monkeypatch: pytest.MonkeyPatch) -> None:
    model, neurons = ported("gap_registers_layerscale"), {0: list(range(30))}
    more = model.with_registers()
    items = [items[at % 5] for at in range(70)]  # more images than groups, so that some groups have several
    lengths, make = [], pd.DataFrame.__init__

    def measured(table: pd.DataFrame, *args: Any, **kwargs: Any) -> None:
        make(table, *args, **kwargs)
        lengths.append(len(table))

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "__init__", measured)
        table = compare_registers(model, items, neurons, resampling=FEW)
    assert max(lengths) <= len(table)  # no table has a row for each image, block, kind of token and metric
    found = table.query("condition == 'moved'")
    groups = image_groups(torch.arange(70)).tolist()
    counts = np.zeros((64, 2, 3, 3, 7))  # [group run layer count class]
    images, labels = (
        torch.stack([image for image, _, _ in items[:5]]),
        torch.tensor([label for _, label, _ in items[:5]]),
    )
    for run, (m, hooks) in enumerate(((model, []), (more, move_neurons(more, neurons)))):
        with m.hooks(fwd_hooks=hooks):
            _, cache = m.run_with_cache(images, names_filter="resid_post")
        top = project(m, cache, "resid_post", labels, k=1).top_classes[..., m.token_layout.patches, 0]
        for at, (_, label, mask) in enumerate(items):
            for layer in range(3):
                pixels = segmentation_map(top[layer, at % 5], (4, 3), (32, 24))
                count = counts[groups[at], run, layer]
                count[0, label] += int(((pixels == label) & mask).sum())
                count[1] += pixels.flatten().bincount(minlength=7).numpy()
                count[2, label] += int(mask.sum())
    counts = counts[counts.any(axis=(1, 2, 3, 4))]
    assert 30 < len(counts) < 64
    rows = found[found["metric"] == "mean_iou"].set_index("layer")
    assert rows["n_images"].tolist() == [70] * 3
    for layer in range(3):
        of_layer = counts[:, :, layer]
        before, after = (mean_iou_by_loop(sums) for sums in of_layer.sum(axis=0))
        numbers = rows.loc[layer, ["before", "after", "value"]].tolist()
        np.testing.assert_allclose(numbers, [before, after, after - before], rtol=1e-5, atol=1e-5)
        difference = bootstrap_of_sums(
            of_layer,
            lambda sums: np.array([mean_iou_by_loop(after) - mean_iou_by_loop(before) for before, after in sums]),
            n_resamples=FEW.n_resamples,
        )
        expected = float(difference.low), float(difference.high)
        np.testing.assert_allclose(rows.loc[layer, ["low", "high"]].tolist(), expected, rtol=1e-4, atol=1e-4)
    assert (rows["low"] < rows["high"]).any()


def test_random_neurons_are_others_and_depend_on_the_seed() -> None:
    model = ported("cls")
    drawn = [random_neurons(model, {0: [3, -1], 2: [7]}, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert not set(drawn[0][0]) & {3, 59}
    assert {layer: len(chosen) for layer, chosen in drawn[0].items()} == {0: 2, 2: 1}
    with pytest.raises(ValueError, match="block 0 has 20 other neurons, the control needs 40"):
        random_neurons(model, {0: list(range(40))}, seed=0)
