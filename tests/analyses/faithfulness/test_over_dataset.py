"""Dataset-level scores of methods match the functions on one batch, and shards of a dataset add up."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from analysis_batches import batch_of, model_of

from analyses.data.patch_labels import token_labels
from analyses.faithfulness.localisation import average_precision, mask_iou, pointing_game
from analyses.faithfulness.over_dataset import Faithfulness, Localisation
from analyses.faithfulness.removal import removal_curve, removal_order
from analyses.feature_importance.baseline import random_map
from analyses.feature_importance.methods import explainer
from analyses.feature_importance.probe_order import ProbeOrder
from analyses.linear_probe.ridge import fit_ridge_probe
from analyses.statistics import Resampling

METHODS = ("importance", "relevance", "random")


def maps_of(name: str, batch):
    tokens = batch.cache["hook_tokens"]
    if name == "random":
        return random_map(batch.model, tokens, batch.labels, index=batch.index, start_at_layer=0)
    return explainer(name)(batch.model, tokens, batch.labels, start_at_layer=0)


def test_faithfulness_matches_removal_curves(kind: str) -> None:
    analysis = Faithfulness(METHODS, n_steps=4, resampling=Resampling(20))
    batch = batch_of(kind, [analysis], index=range(5))
    analysis.update(batch)
    table = analysis.compute()
    most = 12 if batch.model.cfg.pool in ("cls", "cls_and_dist") or batch.model.cfg.pool_includes_prefix else 11
    steps = np.unique(np.linspace(0, most, 5).round().astype(int)).tolist()
    assert set(table["samples"]) == {"all images"}
    assert set(table["removal"]) == {"patch tokens dropped after the position embedding"}
    for name in METHODS:
        for direction in ("negative", "positive"):
            order = removal_order(maps_of(name, batch), direction)
            tokens = batch.cache["hook_tokens"]
            curve = removal_curve(model_of(kind), tokens, batch.labels, order, steps, start_at_layer=0)
            rows = table.query(f"method == '{name}' and direction == '{direction}'").set_index("metric")
            assert rows.loc["accuracy", "n_removed"].tolist() == steps
            assert rows.loc["accuracy", "value"].tolist() == pytest.approx(curve.accuracy.tolist())
            for rule in ("published", "trapezoid"):
                assert rows.loc[f"auc_{rule}", "value"] == pytest.approx(curve.auc(rule), nan_ok=True)


def test_samples_may_be_only_the_correct_ones() -> None:
    analysis = Faithfulness(["importance"], samples="correct", n_steps=3)
    batch = batch_of("cls", [analysis], index=range(8))
    right = int((batch.logits.argmax(-1) == batch.labels).sum())
    assert 0 < right < 8
    analysis.update(batch)
    table = analysis.compute()
    assert set(table["n_images"]) == {right}
    assert table.query("n_removed == 0")["value"].eq(1).all()
    assert set(table["samples"]) == {"images classified correctly when whole"}


def test_localisation_matches_the_scores(kind: str) -> None:
    analysis = Localisation(METHODS)
    batch = batch_of(kind, [analysis], index=range(5))
    analysis.update(batch)
    table = analysis.compute().set_index(["method", "metric"])
    on_object = token_labels(batch.object_mask, (4, 3), anchor="centre")
    counted = on_object.any(1) & ~on_object.all(1)
    assert counted.tolist() == [True, False, True, True, True]
    assert table["n_images"].eq(4).all()
    assert table["chance"].iloc[0] == pytest.approx(on_object[counted].float().mean().item())
    for name in METHODS:
        maps = maps_of(name, batch)[counted]
        for score in (pointing_game, mask_iou, average_precision):
            expected = score(maps, on_object[counted]).mean().item()
            assert table.loc[(name, score.__name__), "value"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("make", [lambda: Faithfulness(METHODS, n_steps=3), lambda: Localisation(METHODS)])
def test_shards_add_up(make) -> None:
    whole, first, second = make(), make(), make()
    whole.update(batch_of("cls", [whole], index=range(6)))
    second.update(batch_of("cls", [second], index=(3, 4, 5)))
    first.update(batch_of("cls", [first], index=(0, 1, 2)))
    second.merge_state(first)
    pd.testing.assert_frame_equal(second.compute(), whole.compute())


def test_methods_on_pixels_and_user_explainers() -> None:
    def brightness(model, images, classes, *, start_at_layer=None):
        assert start_at_layer is None
        return images.mean(1)[:, 4::8, 4::8].flatten(1)

    brightness.needs_pixels = True
    features = torch.randn(3, 14, 20, 24, generator=torch.Generator().manual_seed(3))
    order = ProbeOrder(fit_ridge_probe(features, torch.arange(20) % 7, n_classes=7))
    methods = {"input_gradients": explainer("input_gradients"), "brightness": brightness, "probes": order}
    analysis = Localisation(methods)
    batch = batch_of("cls", [analysis], index=range(5))
    analysis.update(batch)
    on_object = token_labels(batch.object_mask, (4, 3), anchor="centre")[[0, 2, 3, 4]]
    table = analysis.compute().query("metric == 'average_precision'").set_index("method")["value"]
    for name, method in methods.items():
        maps = method(batch.model, batch.images, batch.labels)[[0, 2, 3, 4]]
        assert table[name] == pytest.approx(average_precision(maps, on_object).mean().item(), rel=1e-5)
    with pytest.raises(ValueError, match="'brightness' needs pixels: give the batch its `images`"):
        Faithfulness({"brightness": brightness}).update(replace(batch, images=None))


def test_two_analyses_may_use_one_name_for_different_methods() -> None:
    first, second = (Localisation({"mine": explainer(name)}) for name in ("importance", "raw_attention"))
    batch = batch_of("cls", [first])
    first.update(batch)
    second.update(batch)
    for analysis, name in ((first, "importance"), (second, "raw_attention")):
        alone = Localisation({"mine": explainer(name)})
        alone.update(batch_of("cls", [alone]))
        pd.testing.assert_frame_equal(analysis.compute(), alone.compute())


def test_without_masks_there_are_no_rows() -> None:
    analysis = Localisation(["random"])
    analysis.update(batch_of("cls", [analysis], masks=False))
    assert analysis.compute().empty


def test_errors() -> None:
    with pytest.raises(ValueError, match="no method is called 'relevence': did you mean 'relevance'"):
        Localisation(["relevence"])
    with pytest.raises(
        ValueError, match=r"expected some of importance, .*, or a mapping from names to explainers, got \(\)"
    ):
        Faithfulness(())
    with pytest.raises(ValueError, match="samples 'all' or 'correct'"):
        Faithfulness(n_steps=0)
    with pytest.raises(ValueError, match="no image was seen"):
        Faithfulness().compute()
    assert torch.equal(Faithfulness().n_patches, torch.tensor(0))
