"""Headline numbers come from the last block of the tables, with intervals, controls and published values."""

import math

import pandas as pd
import pytest
from scipy.stats import norm

from analyses.catalogue.published import PUBLISHED
from analyses.categorical_updates.over_dataset import CategoricalUpdates
from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.faithfulness.over_dataset import Faithfulness, Localisation
from analyses.identifiability import Identifiability
from analyses.memory_pairs.agreement import KeyValueAgreement
from analyses.memory_pairs.composition import Compositionality
from analyses.pages.report.quantities import Quantity, quantities_of
from analyses.perturbation.over_dataset import Perturbation
from analyses.statistics import Resampling
from analyses.sweep.run import sweep
from analyses.value_vectors.alignment import ClassValueAgreement
from hooked_vit import HookedViT

Tables = dict[str, pd.DataFrame]
B32 = PUBLISHED["B/32"]


@pytest.fixture(scope="module")
def tables() -> Tables:
    """A small sweep of all analyses with headline numbers."""
    model = HookedViT.from_pretrained("emoji-vit")
    nine = Resampling(9)
    analyses = [
        Identifiability(resampling=nine), CategoricalUpdates(resampling=nine), Perturbation(resampling=nine),
        KeyValueAgreement(resampling=nine), Compositionality(resampling=nine), ClassValueAgreement(resampling=nine),
        Faithfulness(["importance", "random"], n_steps=2, resampling=nine),
        Localisation(["importance"], resampling=nine),
    ]  # fmt: skip
    return sweep(model, EmojiScenes(3, seed=3), analyses)


def by_label(analysis: str, table: pd.DataFrame, null: pd.DataFrame | None = None) -> dict[str, Quantity]:
    """The quantities of a table, by label."""
    quantities = quantities_of(analysis, table, null, B32.values, B32.untrained)
    return {quantity.label: quantity for quantity in quantities}


def test_identifiability_is_measured_after_the_last_block(tables: Tables) -> None:
    table = tables["identifiability"]
    numbers = by_label("identifiability", table, table.assign(value=table["value"] / 2))
    rate = numbers["patch tokens with the class on top"]
    [row] = table.query(
        "layer == 7 and metric == 'identifiability_rate' and token_type == 'patch' and region == 'all'"
    ).to_dict("records")
    assert (rate.value, rate.low, rate.high, rate.control) == (row["value"], row["low"], row["high"], row["value"] / 2)
    assert (rate.published, rate.published_control) == (60.73, 0.066)
    assert numbers["images with at least one such patch"].published == 95.58
    assert math.isnan(numbers["identifiability of CLS"].published)
    assert len(numbers) == 7


def test_accuracy_has_wilsons_interval() -> None:
    table = pd.DataFrame([{"n_images": 50, "top1": 80.0, "top5": 100.0}])
    top1 = by_label("accuracy", table)["accuracy, top 1"]
    z, p, n = norm.ppf(0.975), 0.8, 50
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert top1.low == pytest.approx(100 * (middle - half) / (1 + z**2 / n))
    assert top1.high == pytest.approx(100 * (middle + half) / (1 + z**2 / n))
    assert top1.published == 81.71


def test_perturbations_are_paired_with_their_published_values(tables: Tables) -> None:
    numbers = by_label("perturbation", tables["perturbation"])
    table = tables["perturbation"].query("layer == 7 and token_type == 'patch' and region == 'all'")
    after = table.query("perturbation == 'no_context' and metric == 'identifiability_rate_of_images'")["after"].item()
    before = table.query("perturbation == 'no_context' and metric == 'identifiability_rate'")["before"].item()
    assert numbers["patches on the object, no context: rate"].value == after
    assert numbers["patches on the object, no context: rate"].published == 44.70
    assert numbers["patches on the object, with context: rate"].value == before
    assert numbers["patches on the object, with context: rate"].published == 71.92
    assert numbers["self only: rate of patches"].published == 0.13
    assert math.isnan(numbers["self only: rate of patches"].low)  # the table's interval is of the change
    change = tables["perturbation"].query("perturbation == 'no_cls' and metric == 'accuracy'")
    assert numbers["no CLS: change of accuracy"].low == change["low"].item()


def test_other_analyses(tables: Tables) -> None:
    updates = by_label("categorical_updates", tables["categorical_updates"])
    composed = [quantity.value for label, quantity in updates.items() if label.startswith("patches whose top class")]
    assert len(composed) == 4
    assert max(composed) <= 100
    agreement = by_label("key_value_agreement", tables["key_value_agreement"])
    best = tables["key_value_agreement"].query(
        "metric == 'agreement_rate' and images == 'all' and token_type == 'all' and coefficients == 'pre'"
    )
    [largest] = [quantity for label, quantity in agreement.items() if label.startswith("MLP, before activation")]
    assert largest.value == best["value"].max()
    assert 0 < largest.control < 100
    assert len(by_label("compositionality", tables["compositionality"])) == 3
    values = by_label("class_value_agreement", tables["class_value_agreement"])
    last = tables["class_value_agreement"].query("layer == 7 and stream == 'mlp_out'")
    assert values["MLP: mean largest cosine, last block"].control == last["null"].item()
    areas = by_label("faithfulness", tables["faithfulness"])
    assert areas["importance: area, negative (higher is better)"].published == 0.836
    assert areas["importance: area, positive (lower is better)"].control == \
        areas["random: area, positive (lower is better)"].value  # fmt: skip
    located = by_label("localisation", tables["localisation"])
    assert math.isnan(located["importance: mask IoU"].control)
    assert located["importance: pointing game"].control == tables["localisation"]["chance"].iloc[0]
    assert quantities_of("mine.Own", tables["localisation"]) == []
