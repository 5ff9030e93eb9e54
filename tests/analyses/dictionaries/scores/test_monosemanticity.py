"""Factor scores: chosen on one half, measured on the other, equal to scikit-learn's; planted latents are found."""

import itertools
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from analyses.data import EmojiScenes
from analyses.dictionaries import (
    PooledFeatures,
    absorption,
    compare_features,
    factor_scores,
    factor_summary,
    label_factors,
    scene_factors,
    sparse_probes,
    splitting,
)
from analyses.dictionaries.scores.measurable import permuted
from analyses.dictionaries.scores.monosemanticity import _interval, _resampled_auroc
from analyses.dictionaries.scores.pooling import halves
from analyses.dictionaries.scores.probing import fitted_probe, probe_ranking
from analyses.dictionaries.scores.ranking import best_f1

PATHS = [("animal",), ("animal",), ("animal",), ("food",), ("food",)]
NAMES = ["cat", "dog", "fox", "fig", "pie"]


def pooled_of(values: torch.Tensor, labels: torch.Tensor, name: str = "latents") -> PooledFeatures:
    return PooledFeatures(name, values.half(), labels, torch.arange(len(labels)))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(5).repeat(12)


@pytest.fixture
def noisy(labels: torch.Tensor) -> torch.Tensor:
    """Latents of the class with noise, and more without any relation to it."""
    related = (labels[:, None] == torch.arange(5)) + 0.7 * torch.rand(60, 5)
    return torch.cat([torch.randn(60, 4).relu(), related], dim=1)


def test_scores_are_measured_on_the_other_half(labels: torch.Tensor, noisy: torch.Tensor) -> None:
    pooled, factors = pooled_of(noisy, labels), label_factors(labels, NAMES, PATHS)
    table = factor_scores(pooled, factors, min_images=1, seed=4)
    first, second = halves(60, 4)
    values = pooled.values.float().numpy()
    assert len(table) == 7
    for row in table.itertuples():
        truth = factors.truth[:, factors.names.index((row.factor, row.factor_value))].numpy()
        areas = [roc_auc_score(truth[first], values[first, feature]) for feature in range(9)]
        assert row.feature == int(np.argmax(areas))
        assert row.chosen_auroc == pytest.approx(max(areas), abs=1e-12)
        assert row.auroc == pytest.approx(roc_auc_score(truth[second], values[second, row.feature]), abs=1e-12)
        best = max(
            2 * (shown := values[first, feature] >= at)[truth[first]].sum() / (shown.sum() + truth[first].sum())
            for feature in range(9)
            for at in set(values[first, feature].tolist())
        )
        chosen = f1_score(truth[first], values[first, row.f1_feature] >= row.threshold)
        assert chosen == pytest.approx(best, abs=1e-12)
        predicted = values[second, row.f1_feature] >= row.threshold
        assert row.f1 == pytest.approx(f1_score(truth[second], predicted), abs=1e-12)
        assert row.chance_f1 == pytest.approx(f1_score(truth[second], np.ones(30)), abs=1e-12)
        assert (row.n_images, row.n_with) == (30, truth[second].sum())


def test_chance_finds_nothing() -> None:
    """In noise, the best of 500 features looks good where it was chosen, and is at chance on the other half."""
    scenes = EmojiScenes(200, seed=0)
    factors = scene_factors(scenes, range(200))
    noise = pooled_of(torch.rand(200, 500), torch.zeros(200, dtype=torch.long))
    table, summary = factor_scores(noise, factors), factor_summary(noise, factors).set_index("factor")
    assert (summary["n_found"] == 0).all()
    assert (summary["null_found"] == 0).all()
    assert table["chosen_auroc"].mean() > 0.7
    measured = summary[summary["n_values"] > 0]
    # each interval leaves out chance in one case of twenty
    assert ((measured["low"] <= 0.5) & (measured["high"] >= 0.5)).mean() > 0.7
    # two images of each class: the AUROC of a single image is above 0.9 in one case of ten
    assert summary.loc["class", ["n_values", "n_left_out"]].tolist() == [0, 100]
    assert summary.loc["class", ["auroc", "low", "high", "percent_found"]].isna().all()
    single = factor_summary(noise, factors, min_images=1).set_index("factor").loc["class"]
    assert single["n_found"] > 0
    assert single["null_found"] > 0


def test_values_with_few_images_are_left_out(labels: torch.Tensor, noisy: torch.Tensor) -> None:
    factors = label_factors(labels, NAMES, PATHS)
    first, second = halves(60)
    for min_images in (1, 5, 7):
        counts = [(int(factors.truth[half, c].sum()), int(half.sum())) for c in range(7) for half in (first, second)]
        enough = [n >= min_images and size - n >= min_images for n, size in counts]
        kept = [factors.names[c] for c in range(7) if enough[2 * c] and enough[2 * c + 1]]
        table = factor_scores(pooled_of(noisy, labels), factors, min_images=min_images)
        assert list(zip(table["factor"], table["factor_value"], strict=True)) == kept
        summary = factor_summary(pooled_of(noisy, labels), factors, min_images=min_images)
        assert summary["n_left_out"].sum() == 7 - len(kept)
    summary = factor_summary(pooled_of(noisy, labels), factors, min_images=40)
    assert summary[["n_values", "n_left_out", "n_found"]].values.tolist() == [[0, 2, 0], [0, 5, 0]]


def test_the_null_permutes_within_halves(labels: torch.Tensor, noisy: torch.Tensor) -> None:
    factors, pooled = label_factors(labels, NAMES, PATHS), pooled_of(noisy, labels)
    first, second = halves(60, 3)
    found, values = {"group": 0, "class": 0}, pooled.values.float().numpy()
    for permutation in range(4):
        truth = permuted(factors.truth, first, second, seed=3 + permutation)
        assert not torch.equal(truth, factors.truth)
        for half in (first, second):
            assert sorted(truth[half].tolist()) == sorted(factors.truth[half].tolist())
        for column, (factor, _) in enumerate(factors.names):
            shown = truth[:, column].numpy()
            best = int(np.argmax([roc_auc_score(shown[first], values[first, feature]) for feature in range(9)]))
            found[factor] += roc_auc_score(shown[second], values[second, best]) >= 0.6
    table = factor_summary(pooled, factors, min_images=1, seed=3, found=0.6, n_permutations=4).set_index("factor")
    assert sum(found.values()) > 0
    assert {factor: 4 * table.loc[factor, "null_found"] for factor in found} == found


def test_intervals_are_those_of_resampled_images(labels: torch.Tensor, noisy: torch.Tensor) -> None:
    values, truth = noisy[:, 4:], labels[:, None] == torch.arange(5)
    found = _resampled_auroc(values, truth, 7, seed=2)
    drawn = np.random.default_rng(2).integers(60, size=(7, 60))
    for resample in range(7):
        for value in range(5):
            image = drawn[resample]
            expected = roc_auc_score(truth[image, value].numpy(), values[image, value].numpy())
            assert found[resample, value] == pytest.approx(expected, abs=1e-12)


def test_a_resample_without_the_value_does_not_count() -> None:
    resampled = np.array([[np.nan, np.nan], [0.4, np.nan], [0.5, 0.7]])
    assert _interval(resampled, 1.0) == pytest.approx((0.4, 0.6))
    assert np.isnan(_interval(resampled[:, :0], 0.95)).all()


def test_summary_counts_values_with_a_feature(labels: torch.Tensor, noisy: torch.Tensor) -> None:
    pooled, factors = pooled_of(noisy, labels), label_factors(labels, NAMES, PATHS)
    constant = pooled_of(torch.ones(60, 3), labels, "constant")
    table = compare_features({"latents": pooled, "constant": constant}, factors, min_images=1)
    rows = table.set_index(["features", "factor"])
    scores = factor_scores(pooled, factors, min_images=1)
    for factor in ("group", "class"):
        own = scores[scores["factor"] == factor]
        row = rows.loc[("latents", factor)]
        assert row["auroc"] == pytest.approx(own["auroc"].mean())
        assert row["n_found"] == (own["auroc"] >= 0.9).sum()
        assert row["low"] <= row["auroc"] <= row["high"]
    assert rows.loc[("latents", "class")]["n_found"] == 5
    assert rows.loc[("constant", "class")][["auroc", "n_found", "n_features"]].tolist() == [0.5, 0, 0]
    assert factor_summary(pooled, factors, found=1.01)["n_found"].tolist() == [0, 0]


def test_probes_use_the_features_whose_means_move_most(labels: torch.Tensor, noisy: torch.Tensor) -> None:
    factors = label_factors(labels, NAMES)
    truth = factors.truth
    ranking = probe_ranking(noisy, truth)
    for feature in range(9):
        column = noisy[:, feature].numpy()
        for value in range(5):
            shown = truth[:, value].numpy()
            expected = abs(column[shown].mean() - column[~shown].mean()) / column.std()
            assert float(ranking[feature, value]) == pytest.approx(float(expected), rel=1e-5)
    table = sparse_probes(pooled_of(noisy, labels), factors, ks=(1, 3))
    first, second = halves(60)
    values = noisy.half().float()
    for row in table.itertuples():
        value = NAMES.index(row.factor_value)
        best = probe_ranking(values[first], truth[first])[:, value].argsort(descending=True)[: row.k]
        assert list(row.chosen) == best.tolist()
        predicted = fitted_probe(values[first][:, best], truth[first, value], values[second][:, best])
        assert row.f1 == pytest.approx(f1_score(truth[second, value].numpy(), predicted.numpy()))
    assert table.query("k == 1")["f1"].min() > 0.9


def test_splitting_finds_how_many_latents_share_a_group(labels: torch.Tensor) -> None:
    one_each = (labels[:, None] == torch.arange(3)).float()  # of the animals; none for food
    table = splitting(pooled_of(one_each, labels), label_factors(labels, NAMES, PATHS), max_k=3)
    rows = table.set_index("factor_value")
    assert rows.loc["animal", "n_latents"] == 3
    assert set(rows.loc["animal", "latents"]) == {0, 1, 2}
    assert rows.loc["animal", "split_f1"] == 1
    assert rows.loc["cat", ["n_latents", "f1"]].tolist() == [1, 1.0]
    whole = torch.cat([(labels[:, None] < 3).float(), one_each], dim=1)
    table = splitting(pooled_of(whole, labels), label_factors(labels, NAMES, PATHS), max_k=3)
    assert table.set_index("factor_value").loc["animal", "n_latents"] == 1


def absorbed_latents(labels: torch.Tensor) -> torch.Tensor:
    """A latent for animals that is silent on foxes, and one for foxes."""
    return torch.stack([((labels < 2) & (labels >= 0)).float(), (labels == 2).float()], dim=1)


def test_absorption_finds_the_child_that_silences_its_parent(labels: torch.Tensor) -> None:
    factors = label_factors(labels, NAMES, PATHS)
    values = absorbed_latents(labels)
    pooled = pooled_of(values, labels)
    aligned, opposed = torch.tensor([[1.0, 0.0], [0.5, 1.0]]), torch.tensor([[1.0, 0.0], [-0.5, 1.0]])
    _, second = halves(60)
    n_animals = int((labels[second] < 3).sum())
    n_foxes = int((labels[second] == 2).sum())
    cases = [(None, n_foxes), (aligned, n_foxes), (opposed, 0)]
    # the latent for foxes would complete the one for animals, and is not the parent's for that, whatever max_k
    for (directions, share), max_k in itertools.product(cases, (1, 5)):
        table = absorption(pooled, factors, directions, max_k=max_k).set_index("factor_value")
        row = table.loc["animal"]
        assert (row["n_counted"], row["n_latents"]) == (n_animals, 1)
        assert row["percent_missed"] == pytest.approx(100 * n_foxes / n_animals)
        assert row["percent_absorbed"] == pytest.approx(100 * share / n_animals)
        assert row["absorbed_by"] == (("fox",) if share else ())
    whole = pooled_of(torch.stack([(labels < 3).float(), (labels == 2).float()], dim=1), labels)
    assert absorption(whole, factors).set_index("factor_value").loc["animal", "percent_missed"] == 0
    only_children = pooled_of((labels[:, None] == torch.arange(5)).float(), labels)
    assert absorption(only_children, factors)["factor_value"].tolist() == []  # no latent is left for a parent


def test_absorption_equals_a_loop_over_images(labels: torch.Tensor, noisy: torch.Tensor) -> None:
    values = torch.cat([noisy, absorbed_latents(labels) + 0.3 * torch.rand(60, 2)], dim=1)
    pooled, factors = pooled_of(values, labels), label_factors(labels, NAMES, PATHS)
    directions = torch.randn(values.shape[1], 7)
    unit = directions / directions.norm(dim=1, keepdim=True)
    first, second = halves(60)
    train, test = (pooled.values[half].float() for half in (first, second))
    f1, at = best_f1(train, factors.truth[first])
    table = absorption(pooled, factors, directions, max_k=1).set_index("factor_value")
    for parent, children in ((0, (2, 3, 4)), (1, (5, 6))):
        best = {child: int(f1[:, child].argmax()) for child in children}
        own = {c: latent for c, latent in best.items() if f1[latent, c] >= 0.5 and f1[latent, c] > f1[latent, parent]}
        ranking = probe_ranking(train, factors.truth[first])[:, parent]
        shows = factors.truth[first, parent]
        able = [
            latent
            for latent in range(len(f1))
            if latent not in own.values() and train[shows, latent].mean() > train[~shows, latent].mean()
        ]
        main = max(able, key=lambda latent: float(ranking[latent]))
        truth = factors.truth[first, parent]
        finds, knows = fitted_probe(train[:, [main]], truth, test[:, [main]]), fitted_probe(train, truth, test)
        n_counted = n_missed = n_absorbed = 0
        for image, shown in enumerate(factors.truth[second]):
            if not (shown[parent] and knows[image]):
                continue
            n_counted += 1
            n_missed += not finds[image]
            n_absorbed += not finds[image] and any(
                shown[c] and test[image, latent] >= at[latent, c] and float(unit[latent] @ unit[main]) > 0.025
                for c, latent in own.items()
            )
        row = table.loc[factors.names[parent][1]]
        assert row["n_counted"] == n_counted > 0
        assert row["percent_missed"] == pytest.approx(100 * n_missed / n_counted)
        assert row["percent_absorbed"] == pytest.approx(100 * n_absorbed / n_counted)


def test_values_of_one_name_are_kept_apart(labels: torch.Tensor) -> None:
    """ImageNet has two classes that are called crane: a bird and a machine."""
    names, paths = ["crane", "crane", "fox", "fig", "pie"], [*PATHS[:3], ("machine",), ("machine",)]
    names[3] = "crane"
    values = pooled_of((labels[:, None] == torch.arange(5)).float(), labels)
    unique = label_factors(labels, NAMES, paths)
    table = splitting(values, label_factors(labels, names, paths))
    expected = splitting(values, unique)
    assert table["factor_value"].tolist().count("crane") == 3
    pd.testing.assert_frame_equal(table.drop(columns="factor_value"), expected.drop(columns="factor_value"))
    one_name = [("crane", "crane"), ("crane", "tall"), ("crane", "tall"), ("tall", "crane"), ("tall", "crane")]
    whole = torch.stack([labels < 3, labels == 0, (labels == 1) | (labels == 2), labels > 2], dim=1).float()
    factors = label_factors(labels, names, one_name)
    table = absorption(pooled_of(whole, labels), factors)
    assert len(table) == len({parent for parent in factors.parents if parent >= 0})


def test_nothing_is_chosen_on_the_images_that_are_measured(labels: torch.Tensor) -> None:
    factors = label_factors(labels, NAMES, PATHS)
    _, second = halves(60)
    one_each = (labels[:, None] == torch.arange(3)) + 0.3 * torch.rand(60, 3)
    other = one_each.clone()
    other[second] = torch.rand(30, 3)
    tables = [splitting(pooled_of(values, labels), factors) for values in (one_each, other)]
    assert tables[0]["n_latents"].tolist() == tables[1]["n_latents"].tolist()
    assert tables[0]["latents"].tolist() == tables[1]["latents"].tolist()
    assert max(tables[0]["n_latents"]) > 1
    assert (tables[1]["split_f1"] < tables[0]["split_f1"]).any()
    counts = [absorption(pooled_of(values, labels), factors)["n_latents"].tolist() for values in (one_each, other)]
    assert counts[0] == counts[1]


def test_probes_without_scikit_learn_say_what_to_install(
    labels: torch.Tensor, noisy: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    pooled, factors = pooled_of(noisy, labels), label_factors(labels, NAMES, PATHS)
    for analysis in (sparse_probes, splitting, absorption):
        with pytest.raises(ImportError, match=r"^probes need scikit-learn: pip install 'hooked-vit\[probes\]'$"):
            analysis(pooled, factors)
    assert len(factor_scores(pooled, factors, min_images=1)) == 7


def test_errors_say_what_to_do(labels: torch.Tensor, noisy: torch.Tensor) -> None:
    pooled = pooled_of(noisy, labels)
    with pytest.raises(ValueError, match="got 59 and 60 images"):
        factor_scores(pooled, label_factors(labels[:59], NAMES))
    with pytest.raises(ValueError, match=r"from 1 to 9, got \[0\]"):
        sparse_probes(pooled, label_factors(labels, NAMES), ks=[0])
    with pytest.raises(ValueError, match="expected factors with a taxonomy"):
        absorption(pooled, label_factors(labels, NAMES))
    with pytest.raises(ValueError, match="expected 9 directions, one for each latent, got 2"):
        absorption(pooled, label_factors(labels, NAMES, PATHS), torch.eye(2))
    with pytest.raises(ValueError, match="max_k must be at least 1, got 0"):
        splitting(pooled, label_factors(labels, NAMES), max_k=0)
    with pytest.raises(ValueError, match=r"at least four images.*got 3"):
        splitting(pooled.of_images(slice(3)), label_factors(labels[:3], NAMES))
    with pytest.raises(ValueError, match="got 59 and 60 images"):
        splitting(pooled, label_factors(labels[:59], NAMES))
    with pytest.raises(ValueError, match="min_images must be at least 1, got 0"):
        factor_scores(pooled, label_factors(labels, NAMES), min_images=0)
    with pytest.raises(ValueError, match="n_permutations must be at least 1, got 0"):
        factor_summary(pooled, label_factors(labels, NAMES), n_permutations=0)
    with pytest.raises(ValueError, match="features to compare, got none"):
        compare_features({}, label_factors(labels, NAMES))
