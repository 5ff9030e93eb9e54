"""The sweep analysis is `pruned_logits` of every image, its overlaps are those of sets, and shards merge."""

import numpy as np
import pytest
import torch
from analysis_batches import batch_of, whole_and_merged
from conftest import ported
from torch import Tensor

from analyses.data import token_labels
from analyses.statistics import Resampling
from analyses.sweep import sweep
from analyses.token_pruning import TokenPruning, pruned_logits

Items = list[tuple[Tensor, int, Tensor]]


@pytest.fixture(scope="module")
def items() -> Items:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(6, 3, 32, 24, generator=generator)
    labels = ported("cls")(images).argmax(-1).tolist()
    masks = [torch.zeros(32, 24, dtype=torch.bool) for _ in labels]
    for index, mask in enumerate(masks[:5]):  # the last image shows no object
        mask[: 9 + 4 * index, : 5 + 3 * index] = True
    return list(zip(images, labels, masks, strict=True))


@pytest.mark.parametrize("kind", ["cls", "gap_registers_layerscale"])
def test_it_is_pruned_logits_of_every_image(kind: str, items: Items) -> None:
    model = ported(kind)
    analysis = TokenPruning(block=2, shares=(0.5, 0.2), resampling=Resampling(19))
    table = sweep(model, items, [analysis], batch_size=4)["token_pruning"]
    images, labels = torch.stack([item[0] for item in items]), torch.tensor([item[1] for item in items])
    on_object = token_labels(torch.stack([item[2] for item in items]), model.token_layout.grid)
    whole = (model(images).argmax(-1) == labels).double()
    scores = ["class_space", "label", "cls_attention", "importance", "norm", "random"]
    if kind != "cls":
        scores.remove("cls_attention")
    assert table["score"].drop_duplicates().tolist() == ["all", *scores]
    assert set(table["block"]) == {2}
    right, kept = {}, {}
    for share, n_kept in ((0.5, 6), (0.2, 2)):
        for score in scores:
            options = {"labels": labels, "index": torch.arange(6)}
            run = pruned_logits(model, images, {2: n_kept}, score, **options)
            right[score], kept[score] = (run.class_logits.argmax(-1) == labels).double(), run.kept
        for score in scores:
            rows = table[(table["score"] == score) & (table["share"] == share)].set_index("metric")
            assert set(rows["n_kept"]) == {n_kept}
            expected = {
                "accuracy": right[score],
                "accuracy_change": right[score] - whole,
                "overlap": (kept[score] & kept["class_space"]).sum(1) / n_kept,
                "on_object": (kept[score] & on_object)[:5].sum(1) / n_kept,
            }
            if score != "random":
                expected["accuracy_minus_random"] = right[score] - right["random"]
            assert set(rows.index) == set(expected)
            for metric, values in expected.items():
                assert rows.loc[metric, "value"] == pytest.approx(100 * float(values.double().mean())), (score, metric)
                assert rows.loc[metric, "low"] <= rows.loc[metric, "value"] + 1e-9 <= rows.loc[metric, "high"] + 2e-9
            assert rows.loc["on_object", "n_images"] == 5
    assert table.iloc[0][["score", "n_kept", "value"]].tolist() == ["all", 12, pytest.approx(100 * float(whole.mean()))]


def test_shards_merge() -> None:
    whole, merged = whole_and_merged(lambda: TokenPruning(["class_space", "random"], resampling=Resampling(9)), "cls")
    assert whole.compute().equals(merged.compute())


def test_without_masks_there_is_no_row_on_objects(items: Items) -> None:
    table = sweep(ported("cls"), [item[:2] for item in items], [TokenPruning(["norm"], shares=[0.3])])["token_pruning"]
    assert set(table["metric"]) == {"accuracy", "accuracy_change", "overlap"}
    assert np.isfinite(table["value"]).all()


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    with pytest.raises(ValueError, match=r"expected a list of scores out of class_space, .* got 'norm'"):
        TokenPruning("norm")
    with pytest.raises(ValueError, match=r"above 0 and at most 1, got \[0.0\]"):
        TokenPruning(shares=[0.0])
    with pytest.raises(ValueError, match="expected a block from 0 to 2 to prune at, got 3"):
        TokenPruning(block=3).names(ported("cls").cfg)
    with pytest.raises(ValueError, match="no image was seen"):
        TokenPruning().compute()
    analysis = TokenPruning(["cls_attention"])
    with pytest.raises(ValueError, match="needs a CLS token"):
        analysis.update(batch_of("gap_registers_layerscale", [TokenPruning(["norm"])]))
