"""Every number equals a loop over images that runs each of them clean and perturbed, and shards merge."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from perturbed_batches import item, model_with_pictures
from torch import Tensor

from analyses.analysis import AnalysisBatch
from analyses.analysis.tables import rows_where
from analyses.attribution import attribution_names, logit_attribution
from analyses.projection import project
from analyses.robustness import Occlusion, PatchShuffle, Robustness
from analyses.statistics import Resampling, bootstrap_interval
from analyses.statistics.hypothesis_tests import permutation_test
from analyses.sweep import sweep
from hooked_vit import HookedViT

ITEMS = [item(index) for index in range(6)]
FEW = Resampling(49, seed=2)
PERTURBATIONS: dict[str, Any] = {"hidden": Occlusion(0.5), "shuffled": PatchShuffle()}


def darker(batch: AnalysisBatch) -> Tensor:
    """A perturbation of the user's own."""
    assert batch.images is not None
    return 0.5 * batch.images


@torch.no_grad()
def run(model: HookedViT, image: Tensor, label: int) -> dict[str, Any]:
    """What one image's own run gives."""
    labels = torch.tensor([label])
    logits, cache = model.run_with_cache(image[None], names_filter=["resid_post", *attribution_names(model.cfg)])
    found = project(model, cache, "resid_post", labels)
    assert found.rank is not None
    assert found.label_logit is not None
    parts = logit_attribution(model, cache, labels)
    return {"rank": found.rank[:, 0], "logit": found.label_logit[:, 0], "right": int(logits.argmax()) == label,
            "head": parts.head[:, 0], "mlp": parts.mlp[:, 0]}  # fmt: skip


@torch.no_grad()
def runs(model: HookedViT, perturb: Callable[[AnalysisBatch], Tensor]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each image, clean and perturbed, one by one."""
    found = []
    for index, (image, label, _) in enumerate(ITEMS):
        logits, cache = model.run_with_cache(image[None], names_filter="logits")
        batch = AnalysisBatch(model, cache, logits, torch.tensor([label]), torch.tensor([index]), images=image[None])
        found.append((run(model, image, label), run(model, perturb(batch)[0], label)))
    return found


@pytest.fixture(scope="module", params=["cls", "gap_registers_layerscale"])
def swept(request: pytest.FixtureRequest) -> tuple[HookedViT, pd.DataFrame]:
    """A model, and its table."""
    model = model_with_pictures(request.param)
    perturbations = {**PERTURBATIONS, "darker": darker}
    return model, sweep(model, ITEMS, [Robustness(perturbations, FEW)], batch_size=4)["robustness"]


@pytest.mark.parametrize("name", ["hidden", "shuffled", "darker"])
def test_identifiability_and_accuracy_are_those_of_loops(swept: tuple[HookedViT, pd.DataFrame], name: str) -> None:
    model, table = swept
    pairs, patches = runs(model, PERTURBATIONS.get(name, darker)), model.token_layout.patches
    row = rows_where(table, {"perturbation": name, "metric": "accuracy"}).iloc[0]
    accuracies = [100 * np.mean([one[t]["right"] for one in pairs]) for t in (0, 1)]
    assert row[["before", "after"]].tolist() == pytest.approx(accuracies)
    for layer in range(3):
        scores, rates, rising = [], [], []
        for pair in pairs:
            ranks = [one["rank"][layer, patches].double() for one in pair]
            scores.append([float((1 - rank / 7).mean()) for rank in ranks])
            rates.append([100 * float((rank == 0).double().mean()) for rank in ranks])
            if layer:
                rose = [one["logit"][layer, patches] > one["logit"][layer - 1, patches] for one in pair]
                rising.append([float(rose_of.double().mean()) for rose_of in rose])
        for metric, numbers in (("identifiability", scores), ("identifiability_rate", rates), ("change_rate", rising)):
            where = {"perturbation": name, "metric": metric, "layer": layer, "token_type": "patch", "region": "all"}
            rows = rows_where(table, where)
            assert len(rows) == bool(numbers)
            if not numbers:
                continue
            row, both = rows.iloc[0], np.array(numbers)
            assert (row["before"], row["after"]) == pytest.approx(tuple(both.mean(axis=0)), abs=1e-6)
            interval = bootstrap_interval(both[:, 1] - both[:, 0], n_resamples=49, seed=2)
            assert (row["value"], row["low"], row["high"]) == pytest.approx(
                (float(interval.estimate), float(interval.low), float(interval.high)), abs=1e-6
            )
            test = permutation_test(both[:, 1], both[:, 0], paired=True, n_resamples=49, seed=2)
            assert row["p_value"] == pytest.approx(test.p_value)


def test_attribution_is_that_of_loops(swept: tuple[HookedViT, pd.DataFrame]) -> None:
    model, table = swept
    pairs = runs(model, PERTURBATIONS["hidden"])
    rows = rows_where(table, {"perturbation": "hidden", "metric": "attribution"})
    assert len(rows) == 3 * (3 + 1)
    for row in rows.to_dict("records"):
        stream, layer = str(row["stream"]), int(row["layer"])
        at = (layer,) if stream == "mlp" else (layer, int(row["head"]))
        both = np.array([[float(one[stream][at]) for one in pair] for pair in pairs])
        assert (row["before"], row["after"]) == pytest.approx(tuple(both.mean(axis=0)), abs=1e-5)
        assert row["value"] == pytest.approx(float(both[:, 1].mean() - both[:, 0].mean()), abs=1e-5)
        assert row["p_adjusted"] >= row["p_value"]
        assert pd.isna(row["head"]) == (stream == "mlp")


def test_cls_is_compared_with_patches_within_images() -> None:
    model = model_with_pictures("cls")
    table = sweep(model, ITEMS, [Robustness({"darker": darker}, FEW)])["robustness"]
    pairs = runs(model, darker)
    for layer in range(3):
        changes = [[float(-(b["rank"][layer, t].double() - a["rank"][layer, t].double()).mean() / 7)
                    for t in (slice(0, 1), slice(1, None))] for a, b in pairs]  # fmt: skip
        row = rows_where(table, {"token_type": "cls_minus_patch", "layer": layer}).iloc[0]
        both = np.array(changes)
        assert row["value"] == pytest.approx(float((both[:, 0] - both[:, 1]).mean()), abs=1e-6)
        assert (row["after"], row["before"]) == pytest.approx(tuple(both.mean(axis=0)), abs=1e-6)


def test_regions_are_left_out_where_the_object_moves(swept: tuple[HookedViT, pd.DataFrame]) -> None:
    _, table = swept
    patches = table[(table["metric"] == "identifiability") & (table["token_type"] == "patch")]
    regions = {name: set(rows["region"]) for name, rows in patches.groupby("perturbation")}
    assert regions == {
        "hidden": {"all", "object", "context"}, "darker": {"all", "object", "context"}, "shuffled": {"all"},
    }  # fmt: skip


def test_batches_merge() -> None:
    model = model_with_pictures("cls")
    tables = [
        sweep(model, ITEMS, [Robustness({"hidden": Occlusion(0.5)}, FEW)], batch_size=n)["robustness"] for n in (1, 6)
    ]
    for column in ("before", "after", "value", "low", "high"):
        np.testing.assert_allclose(
            tables[0][column].astype(float), tables[1][column].astype(float), rtol=1e-4, atol=1e-5
        )


def test_a_head_that_is_not_linear_has_no_attribution() -> None:
    model = model_with_pictures("map")
    table = sweep(model, ITEMS[:2], [Robustness({"hidden": Occlusion(0.5)}, FEW)])["robustness"]
    assert "attribution" not in set(table["metric"])
    assert "identifiability" in set(table["metric"])


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    model = model_with_pictures("cls")
    assert list(Robustness().perturbations) == ["noise", "blur", "occlusion", "patch_shuffle"]
    with pytest.raises(ValueError, match="expected at least one perturbation"):
        Robustness({})
    with pytest.raises(ValueError, match="perturbation 'fog' must be a function from a batch to images, got str"):
        Robustness({"fog": "fog:3"})  # pyright: ignore

    def cropped(batch: AnalysisBatch) -> Tensor:
        assert batch.images is not None
        return batch.images[..., :-1]

    with pytest.raises(ValueError, match=r"'cropped' turned images of shape \(2, 3, 32, 24\) into \(2, 3, 32, 23\)"):
        sweep(model, ITEMS[:2], [Robustness({"cropped": cropped})])
    logits, cache = model.run_with_cache(ITEMS[0][0][None], names_filter=Robustness().names(model.cfg))
    with pytest.raises(ValueError, match="robustness needs pixels"):
        Robustness().update(AnalysisBatch(model, cache, logits, torch.tensor([0]), torch.tensor([0])))
