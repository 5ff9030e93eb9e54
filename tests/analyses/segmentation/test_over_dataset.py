"""The sweep analysis equals a loop over images and pixels, merges, and has no rows without masks."""

import numpy as np
import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.linear_probe import fit_ridge_probe
from analyses.segmentation import (
    Segmentation,
    count_pixels,
    fit_patch_head,
    mean_iou,
    segmentation_map,
)
from analyses.segmentation.over_dataset import image_groups
from analyses.statistics import Resampling
from analyses.sweep import sweep
from hooked_vit import HookedViT

KINDS = ["cls", "gap_registers_layerscale"]
Items = list[tuple[Tensor, int, Tensor]]


@pytest.fixture
def items() -> Items:
    """Five images with masks; the last mask is empty."""
    generator = torch.Generator().manual_seed(7)
    found = []
    for index, label in enumerate([3, 0, 3, 5, 1]):
        mask = torch.zeros(32, 24, dtype=torch.bool)
        if index < 4:
            mask[3 + index : 19 + index, 2 : 13 + 2 * index] = True
        found.append((torch.randn(3, 32, 24, generator=generator), label, mask))
    return found


@torch.no_grad()
def by_loop(model: HookedViT, items: Items, read: object) -> dict[tuple[int, str], float]:
    """Every number of the table, from pixels."""
    found = {}
    for layer in range(model.cfg.n_layers):
        segmentations, targets, accuracies, ious = [], [], [], []
        for image, label, mask in items[:4]:
            _, cache = model.run_with_cache(image[None], names_filter="resid_post")
            top = read(cache["resid_post", layer][0, model.token_layout.patches], layer).argmax(dim=-1)
            segmentation = segmentation_map(top, model.token_layout.grid, (32, 24))
            hits = int(((segmentation == label) & mask).sum())
            accuracies.append((hits, int(mask.sum())))
            ious.append(hits / int(((segmentation == label) | mask).sum()))
            segmentations.append(segmentation)
            targets.append(torch.where(mask, label, -1))
        stacked = torch.stack(segmentations), torch.stack(targets)
        found[layer, "pixel_accuracy"] = 100 * sum(h for h, _ in accuracies) / sum(n for _, n in accuracies)
        found[layer, "object_iou"] = 100 * float(np.mean(ious))
        found[layer, "mean_iou"] = 100 * float(mean_iou(count_pixels(*stacked, 7)))
        objects = count_pixels(*stacked, 7, background_counts=False)
        found[layer, "mean_iou_on_objects"] = 100 * float(mean_iou(objects))
    return found


@pytest.mark.parametrize("kind_name", KINDS)
def test_numbers_are_those_of_a_loop_over_pixels(kind_name: str, items: Items) -> None:
    model = ported(kind_name)
    head = fit_patch_head(model, items, batch_size=3)
    table = sweep(model, items, [Segmentation(head)], batch_size=2)["segmentation"]
    readers = {
        "class_embeddings": lambda stream, layer: model.class_logits(stream),
        "linear_head": lambda stream, layer: stream @ head.weight[layer] + head.bias[layer],
    }
    for reader, read in readers.items():
        for (layer, metric), expected in by_loop(model, items, read).items():
            row = table.query("layer == @layer and reader == @reader and metric == @metric")
            assert float(row["value"].iloc[0]) == pytest.approx(expected, abs=1e-4), (reader, layer, metric)
    assert set(table["n_images"]) == {4}
    assert set(table["n_classes"]) == {3}
    assert (table["low"] <= table["value"] + 1e-9).all()
    assert (table["value"] <= table["high"] + 1e-9).all()
    assert table["low"].notna().all()


@torch.no_grad()
def test_the_interval_of_the_mean_iou_resamples_groups_of_images() -> None:
    model, generator = ported("cls"), torch.Generator().manual_seed(3)
    mask = torch.zeros(32, 24, dtype=torch.bool)
    mask[5:20, 3:17] = True
    items = [(torch.randn(3, 32, 24, generator=generator), index % 5, mask) for index in range(90)]
    table = sweep(model, items, [Segmentation(resampling=Resampling(50, 0.8, 5))], batch_size=32)["segmentation"]
    row = table.query("layer == 2 and metric == 'mean_iou'").iloc[0]

    groups: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for index, (image, label, mask) in enumerate(items):
        _, cache = model.run_with_cache(image[None], names_filter="resid_post")
        top = model.class_logits(cache["resid_post", 2][0, model.token_layout.patches]).argmax(dim=-1)
        pair = segmentation_map(top, model.token_layout.grid, (32, 24)), torch.where(mask, label, -1)
        groups.setdefault(int(image_groups(torch.tensor([index]))), []).append(pair)
    assert 32 < len(groups) <= 64
    members = [groups[group] for group in sorted(groups)]
    null = []
    for resample in np.random.default_rng(5).integers(0, len(members), (50, len(members))):
        segmentations, targets = zip(*(pair for group in resample for pair in members[group]), strict=True)
        null.append(100 * float(mean_iou(count_pixels(torch.stack(segmentations), torch.stack(targets), 7))))
    assert row["low"] == pytest.approx(np.percentile(null, 10), abs=1e-4)
    assert row["high"] == pytest.approx(np.percentile(null, 90), abs=1e-4)
    many = torch.bincount(image_groups(torch.arange(10_000) * 40), minlength=64)
    assert many.min() > 100, "classes in order spread over the groups, too"


def test_the_order_of_batches_changes_nothing(items: Items) -> None:
    model = ported("cls")
    whole = sweep(model, items, [Segmentation()], batch_size=5)["segmentation"]
    parts = sweep(model, items, [Segmentation()], batch_size=1)["segmentation"]
    np.testing.assert_allclose(whole["value"], parts["value"])


@torch.no_grad()
def test_the_linear_head_is_fitted_to_patches_whose_centre_is_on_the_object(items: Items) -> None:
    model = ported("cls")
    head = fit_patch_head(model, items, alpha=0.5, batch_size=2)
    features, labels = [[] for _ in range(3)], []
    for image, label, mask in items:
        _, cache = model.run_with_cache(image[None], names_filter="resid_post")
        for patch in range(12):
            row, column = divmod(patch, 3)
            if mask[8 * row + 4, 8 * column + 4]:
                labels.append(label)
                for layer in range(3):
                    features[layer].append(cache["resid_post", layer][0, 1 + patch])
    stacked = torch.stack([torch.stack(rows) for rows in features])
    expected = fit_ridge_probe(stacked, torch.tensor(labels), 7, alpha=0.5)
    torch.testing.assert_close(head.weight, expected.weight, rtol=1e-3, atol=1e-5)
    assert head.n_samples == len(labels)


def test_without_masks_there_are_no_rows(items: Items) -> None:
    table = sweep(ported("cls"), [item[:2] for item in items], [Segmentation()])["segmentation"]
    assert len(table) == 0
    assert {"layer", "reader", "metric", "value", "low", "high"} <= set(table.columns)


@pytest.mark.usefixtures("bad_input")
def test_errors(items: Items) -> None:
    model = ported("cls")
    with pytest.raises(ValueError, match="needs object masks"):
        fit_patch_head(model, [item[:2] for item in items])
    with pytest.raises(ValueError, match="the objects are smaller than patches"):
        fit_patch_head(model, [(image, label, mask & False) for image, label, mask in items])
    single = fit_ridge_probe(torch.randn(9, 24), torch.arange(9) % 7, 7)
    with pytest.raises(ValueError, match=r"one probe per layer, got weights of shape \(24, 7\)"):
        Segmentation(single, Resampling())
