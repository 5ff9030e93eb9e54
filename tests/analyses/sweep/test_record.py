"""The record of a sweep: an analysis's options, and whether two sweeps are the same, also across versions."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from sweep_toys import FloatSums, ToyImages, assert_same_tables, toy_model

from analyses.analysis.base import Analysis, AnalysisBatch, analysis_name
from analyses.data import token_labels
from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.identifiability import Identifiability
from analyses.memory_pairs.agreement import KeyValueAgreement
from analyses.perturbation import Perturbation
from analyses.statistics import Resampling
from analyses.sweep.accuracy import Accuracy
from analyses.sweep.record import FORMAT, analysis_options, check_continues, check_same, make_record, upgraded
from analyses.sweep.run import sweep
from analyses.value_vectors.alignment import ClassValueAgreement
from hooked_vit import HookedViT


class Toy(Analysis):
    def names(self, cfg):
        return []

    def update(self, batch: AnalysisBatch) -> None: ...

    def compute(self) -> pd.DataFrame:
        return pd.DataFrame()


class Private(Toy):
    def __init__(self, k: int = 5, **kwargs):
        super().__init__(**kwargs)
        self._k = k
        self.seen = 0


class Elsewhere(Toy):
    def __init__(self, k: int = 5):
        super().__init__()
        self.resampling = {"k": k}
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")


@pytest.mark.parametrize(
    ("analysis", "options"),
    [
        (Toy(), {}),
        (FloatSums(3), {"power": 3}),
        (Private(7), {"k": 7}),
        (Elsewhere(7), {"resampling": {"k": 7}}),
    ],
)
def test_options_are_the_constructors_arguments(analysis: Analysis, options: dict) -> None:
    assert analysis_options(analysis) == options


def test_options_do_not_change_with_updates() -> None:
    analysis = Elsewhere(7)
    analysis.n += 1
    analysis.to("cpu")
    analysis._update_count = 1
    assert analysis_options(analysis) == {"resampling": {"k": 7}}


def test_the_number_of_processes_matters_to_continue_only() -> None:
    model = toy_model()
    alone, shared = (make_record(model, ToyImages(), 37, {"sums": FloatSums()}, {}, n) for n in (1, 2))
    check_same(alone, shared, "out")
    with pytest.raises(ValueError, match=r"'out' holds an interrupted sweep .*\n  processes: 1 then, 2 now"):
        check_continues(alone, shared, "out")


def test_only_the_first_differences_are_listed() -> None:
    then, now = ({"format": FORMAT, "options": {str(i): i + change for i in range(12)}} for change in (0, 1))
    message = r"(?s)'out' .* sweep; they differ in\n.*options.7: 7 then, 8 now\n  and 4 more\nChoose another folder"
    with pytest.raises(ValueError, match=message):
        check_same(then, now, "out")


# ---------------------------------------------------------------------- records of format 1

RESAMPLING_1 = {"type": "analyses.group_tables.Resampling", "n_resamples": 9, "level": 0.9, "seed": 4}
ANALYSES_1 = {
    "accuracy": {"type": "analyses.sweeping.accuracy.Accuracy", "options": {}},
    "identifiability": {
        "type": "analyses.identifiability.Identifiability",
        "options": {"stream": "resid_post", "resampling": RESAMPLING_1},
    },
    # all attributes of an analysis were listed where an argument had no attribute of its name
    "perturbation": {
        "type": "analyses.perturbation.Perturbation",
        "options": {
            "by_default": True,
            "interventions": {
                "self_only": "analyses.attention_masks.self_only",
                "no_cls": "analyses.attention_masks.no_cls",
            },
            "removals": ["context", "object"],
            "resampling": RESAMPLING_1,
        },
    },
    "key_value_agreement": {
        "type": "analyses.key_value_agreement.KeyValueAgreement",
        "options": {
            "sublayers": ["mlp", "attn"], "coefficients": ["pre", "post"], "k": 5, "layer_scale": False,
            "n_resamples": 9, "level": 0.9, "seed": 4,
        },
    },
    # one seed for the null model and the bootstrap
    "class_value_agreement": {
        "type": "analyses.class_value_agreement.ClassValueAgreement",
        "options": {"sublayers": ["mlp", "attn"], "n_resamples": 9, "seed": 0},
    },
    "toy": {"type": "test_record.Sampled", "options": {"n_resamples": 3, "level": 1}},
}  # fmt: skip
"""The section `analyses` of a record, as the version before format 2 wrote it."""
SCENES_1 = {
    "type": "analyses.data.emoji_scenes.EmojiScenes",
    "n": 5,
    "seed": 3,
    "image_size": 64,
    "_recipe": {
        "type": "analyses.data.scene_layout.SceneRecipe",
        "objects": 1,
        "artists": [0, 1, 2],
        "classes": {"length": 100, "sha256": "51f2696d83d68db933cbe2ba69586bfc8d17321ab3bac398a3c536fb4699ae29"},
        "scale": [0.4, 0.95],
        "background_strength": 0.0,
    },
    "_edits": [
        {"type": "analyses.data.scene_edits.SwapObject", "to_class": None, "relation": "any", "which": 0, "seed": 0}
    ],
}
"""The description of a dataset in that record."""


class Sampled(Toy):
    """A user's analysis with options that have the names of a `Resampling`'s."""

    def __init__(self, n_resamples: int = 3, level: int = 1):
        super().__init__()
        self.n_resamples, self.level = n_resamples, level


def todays_record(k: int = 5, processes: int = 1) -> dict[str, Any]:
    """The record that the current version makes for the same sweep."""
    drawn = Resampling(9, level=0.9, seed=4)
    analyses = [
        Accuracy(), Identifiability(resampling=drawn), Perturbation(resampling=drawn),
        KeyValueAgreement(k=k, resampling=drawn), ClassValueAgreement(resampling=Resampling(9)),
    ]  # fmt: skip
    by_name = {analysis_name(type(analysis)): analysis for analysis in analyses} | {"toy": Sampled()}
    model, scenes = HookedViT.from_pretrained("emoji-vit"), EmojiScenes(5, seed=3).swap_object()
    with model.hooks(fwd_hooks=[("hook_pooled", token_labels)]):  # a function of this package; it is not called
        record = make_record(model, scenes, 5, by_name, {"batch_size": 2, "on_error": "skip"}, processes)
    return json.loads(json.dumps(record))


@pytest.fixture(scope="module")
def record_1() -> dict[str, Any]:
    """The record of format 1 for that sweep."""
    record = todays_record()
    del record["format"]
    cfg = record["model"]["cfg"]
    cfg["type"] = "hooked_vit.config.HookedViTConfig"
    cfg["block_norm"]["type"] = cfg["final_norm"]["type"] = "hooked_vit.config.NormConfig"
    assert record["model"]["hooks"] == [["hook_pooled", "token_labels"]]
    record["model"]["hooks"] = [["hook_pooled", "analyses.data.token_labels.token_labels"]]
    return {**record, "dataset": {"n_images": 5, "description": SCENES_1}, "analyses": ANALYSES_1}


def test_a_finished_sweep_of_format_1_is_the_same(record_1: dict[str, Any]) -> None:
    check_same(record_1, todays_record(), "out")
    check_same(record_1, todays_record(processes=2), "out")


def test_an_interrupted_sweep_of_format_1_can_be_continued(record_1: dict[str, Any]) -> None:
    check_continues(record_1, todays_record(), "out")
    with pytest.raises(ValueError, match=r"(?s)cannot continue; it was written by an earlier .*processes: 1 then"):
        check_continues(record_1, todays_record(processes=2), "out")


def test_a_real_difference_from_format_1_is_refused(record_1: dict[str, Any]) -> None:
    message = (
        r"'out' holds the tables of another sweep; it was written by an earlier version of this package, and they "
        r"differ in\n  analyses.key_value_agreement.options.k: 5 then, 7 now\nChoose another folder"
    )
    with pytest.raises(ValueError, match=message):
        check_same(record_1, todays_record(k=7), "out")


@pytest.mark.parametrize("option", ["n_resamples", "level", "seed"])
def test_the_numbers_of_a_resampling_are_compared_with_format_1(record_1: dict[str, Any], option: str) -> None:
    record = json.loads(json.dumps(record_1))
    record["analyses"]["key_value_agreement"]["options"][option] = 0.5
    with pytest.raises(ValueError, match=rf"key_value_agreement.options.resampling.{option}: 0.5 then"):
        check_same(record, todays_record(), "out")


@pytest.mark.parametrize(
    ("dotted", "name"),
    [
        ("analyses.attention_masks.self_only", "self_only"),
        ("hooked_vit.model.HookedViT.forward", "HookedViT.forward"),
        ("analyses.patches.runs._Run", "_Run"),
        ("hooked_vit.interventions.attention.block_attention.<locals>.edit", "block_attention.<locals>.edit"),
        ("analyses.ablation.<lambda>", "<lambda>"),
        ("torch.nn.functional.relu", "torch.nn.functional.relu"),
        ("pictures/analyses.zip", "pictures/analyses.zip"),
    ],
)
def test_names_of_this_package_lose_their_modules(dotted: str, name: str) -> None:
    assert upgraded({"dataset": [dotted]}) == {"format": FORMAT, "dataset": [name]}


def test_a_record_is_upgraded_once(record_1: dict[str, Any]) -> None:
    assert upgraded(upgraded(record_1)) == upgraded(record_1)
    assert upgraded(todays_record()) == todays_record()


@pytest.mark.parametrize("finished", [True, False])
def test_a_sweep_of_format_1_is_read_or_resumed(tmp_path: Path, finished: bool, images_passed: list[int]) -> None:
    model, out = toy_model(), tmp_path / "out"
    tables = sweep(model, ToyImages(4), {"mine": Identifiability(resampling=Resampling(9))}, 2, out)
    record = json.loads((out / "record.json").read_text())
    del record["format"]
    record["finished"] = finished
    record["model"]["cfg"]["type"] = "hooked_vit.config.HookedViTConfig"
    record["analyses"]["accuracy"]["type"] = "analyses.sweeping.accuracy.Accuracy"
    record["analyses"]["mine"] = {
        "type": "analyses.identifiability.Identifiability",
        "options": {"stream": "resid_post", "n_resamples": 9, "level": 0.95, "seed": 0},
    }
    (out / "record.json").write_text(json.dumps(record))
    images_passed.clear()
    again = sweep(model, ToyImages(4), {"mine": Identifiability(resampling=Resampling(9))}, 2, out)
    assert_same_tables(again, tables)
    assert sum(images_passed) == (0 if finished else 4)
    assert (json.loads((out / "record.json").read_text()).get("format") == FORMAT) == (not finished)
