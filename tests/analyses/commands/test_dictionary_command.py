"""`hooked-vit dictionary`: what it trains can be scored and shown, and its numbers are those of the package."""

import inspect
import json
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from typer.models import OptionInfo
from typer.testing import CliRunner

from analyses.commands.cli import app
from analyses.commands.dictionary import dictionary
from analyses.data import EmojiScenes
from analyses.dictionaries import (
    DictionaryFidelity,
    FitOptions,
    embedded_dictionaries,
    load_dictionary,
    train_dictionary,
)
from analyses.sweep import sweep
from hooked_vit import HookedViT


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["dictionary", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dictionary of few latents, trained on a few pictures."""
    folder = tmp_path_factory.mktemp("trained")
    status, printed, errors = run(
        "train", "--data", "emoji-scenes:32", "--layer", -3, "--d-dict", 64, "--k", 4, "--tokens", "patch",
        "--out", folder,
    )  # fmt: skip
    assert (status, errors) == (0, "")
    file = folder / "blocks.5.hook_resid_post.safetensors"
    assert str(file) in printed
    return file


def test_training_makes_what_was_asked(trained: Path) -> None:
    config = load_dictionary(trained).config
    assert (config.d_dict, config.k, config.tokens, config.kind) == (64, 4, "patch", "topk")


def test_defaults_are_those_of_the_package() -> None:
    command, function = (inspect.signature(one).parameters for one in (dictionary, train_dictionary))
    for name in ("kind", "tokens", "epochs", "seed", "writes", "d_dict", "resume"):
        assert command[name].default == function[name].default, name
    for name, default in (("k", 32), ("penalty", FitOptions().penalty), ("learning_rate", FitOptions().learning_rate)):
        found = command[name]
        [option] = [part for part in get_args(found.annotation) if isinstance(part, OptionInfo)]
        assert found.default is None
        assert f"By default {default:g}." in str(option.help)
    assert function["k"].default == 32


def test_a_transcoder_with_a_penalty(tmp_path: Path) -> None:
    few = ("train", "--data", "emoji-scenes:8", "--layer", 5, "--d-dict", 64, "--out", tmp_path)
    status, printed, errors = run(
        *few, "--stream", "mlp_in", "--writes", "mlp_out", "--kind", "relu", "--penalty", 0.5, "--learning-rate", 0.01
    )
    assert (status, errors) == (0, "")
    assert "64 latents of blocks.5.hook_mlp_in to blocks.5.hook_mlp_out, relu" in printed
    trained = load_dictionary(tmp_path / "blocks.5.hook_mlp_out.safetensors")
    assert (trained.config.reads, trained.config.kind) == ("blocks.5.hook_mlp_in", "relu")
    options = trained.record["options"]
    assert (options["penalty"], options["learning_rate"]) == (0.5, 0.01)


def test_another_training_in_the_folder(trained: Path) -> None:
    before = trained.read_bytes()
    command = ("train", "--data", "emoji-scenes:32", "--layer", -3, "--d-dict", 64, "--tokens", "patch")
    status, _, errors = run(*command, "--k", 5, "--out", trained.parent)
    assert status == 1
    assert "dictionaries[0].k: 4 then, 5 now" in errors
    assert "--no-resume" in errors
    assert trained.read_bytes() == before


def test_starting_over(tmp_path: Path) -> None:
    command = ("train", "--data", "emoji-scenes:8", "--d-dict", 64, "--out", tmp_path)
    assert run(*command, "--k", 4)[0] == 0
    assert run(*command, "--k", 5, "--no-resume")[0] == 0
    assert load_dictionary(tmp_path / "blocks.7.hook_resid_post.safetensors").config.k == 5


def test_scores_are_those_of_the_package(trained: Path, tmp_path: Path) -> None:
    arguments = ("score", "--data", "emoji-scenes:40", "--dictionary", trained, "--out", tmp_path / "s", "--json")
    status, printed, errors = run(*arguments)
    assert (status, errors) == (0, "")
    document = json.loads(printed)
    model = HookedViT.from_pretrained("emoji-vit")
    expected = sweep(model, EmojiScenes(40, seed=0), [DictionaryFidelity(trained)])["dictionary_fidelity"]
    found = pd.DataFrame(document["tables"]["fidelity"])
    assert found["value"].tolist() == pytest.approx(expected["value"].tolist(), rel=1e-9)
    factors = pd.DataFrame(document["tables"]["factors"])
    assert factors["n_left_out"].sum() > 0
    assert {"n_found", "null_found"} <= set(factors)
    assert set(factors["features"]) == {"latents", "random latents", "neurons"}
    assert sorted(Path(file).name for file in document["files"]) == [
        "factor_scores.csv", "factors.csv", "factors.png", "fidelity.csv", "fidelity.png",
    ]  # fmt: skip
    assert pd.read_csv(tmp_path / "s" / "fidelity.csv")["metric"].tolist() == found["metric"].tolist()


def test_a_page_is_one_file(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "page.html"
    arguments = ("page", "--data", "emoji-scenes:8", "--dictionary", trained, "--latents", 5, "--out", target)
    status, printed, errors = run(*arguments)
    assert (status, errors) == (0, "")
    assert str(target) in printed
    assert f"<b>{trained}</b>" in target.read_text("utf-8")


@pytest.mark.skipif(not embedded_dictionaries(), reason="no dictionary is embedded")
def test_by_default_the_embedded_dictionary_is_shown(tmp_path: Path) -> None:
    status, _, errors = run("page", "--data", "emoji-scenes:4", "--latents", 3, "--out", tmp_path / "page.html")
    assert (status, errors) == (0, "")
    assert f"<b>{embedded_dictionaries()[0]}</b>" in (tmp_path / "page.html").read_text("utf-8")


def test_mistakes_are_one_line(trained: Path, tmp_path: Path) -> None:
    data = ("--data", "emoji-scenes:8")
    cases = [
        (("train", *data, "--dictionary", trained), 2, "--dictionary is for score and page"),
        (("train", *data, "--kind", "relu", "--k", 8), 2, "how many latents of relu are active follows from --penalty"),
        (("train", *data, "--penalty", 0.1), 2, "how many latents of topk are active follows from --k"),
        (("train", *data, "--learning-rate", 0), 2, "--learning-rate must be a positive number, got 0"),
        (("page", *data, "--dictionary", trained, "--out", tmp_path), 2, "--out must be a file"),
        (("page", *data, "--dictionary", tmp_path / "missing.safetensors"), 1, "no dictionary at"),
        (("train", *data, "--layer", 20, "--out", tmp_path / "t"), 1, "layer"),
        (("paint", *data), 2, "paint"),
    ]
    if not embedded_dictionaries():
        cases.append((("score", *data), 1, "no dictionary comes with the package"))
    for arguments, expected, words in cases:
        status, _, errors = run(*arguments)
        assert status == expected, arguments
        assert words in errors
        assert "Traceback" not in errors
