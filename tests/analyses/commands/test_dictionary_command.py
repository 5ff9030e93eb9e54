"""`hooked-vit dictionary`: what it trains can be scored and shown, and its numbers are those of the package."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from analyses.commands.cli import app
from analyses.data import EmojiScenes
from analyses.dictionaries import DictionaryFidelity, embedded_dictionaries, load_dictionary
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
    assert (config.d_dict, config.k, config.tokens, config.kind) == (64, 4, "patch", "batch_topk")


def test_scores_are_those_of_the_package(trained: Path, tmp_path: Path) -> None:
    arguments = ("score", "--data", "emoji-scenes:40", "--dictionary", trained, "--out", tmp_path / "s", "--json")
    status, printed, errors = run(*arguments)
    assert (status, errors) == (0, "")
    document = json.loads(printed)
    model = HookedViT.from_pretrained("emoji-vit")
    expected = sweep(model, EmojiScenes(40, seed=0), [DictionaryFidelity(trained)])["dictionary_fidelity"]
    found = pd.DataFrame(document["tables"]["fidelity"])
    assert found["value"].tolist() == pytest.approx(expected["value"].tolist(), rel=1e-9)
    assert set(pd.DataFrame(document["tables"]["factors"])["features"]) == {"latents", "random latents", "neurons"}
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
