"""Commands take models of transformers and of a folder by --model, and say what to do where they cannot."""

import json
from pathlib import Path

import pytest
import transformers
from huggingface_models import make_huggingface
from typer.testing import CliRunner

from analyses.commands.cli import app
from analyses.data.emoji_scenes.sample_pictures import sample_scenes

SCENE = str(sample_scenes()[0].path)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small classifier, saved with its processor."""
    names = {index: f"bird {index}" for index in range(7)}
    make_huggingface("vit", id2label=names).save_pretrained(tmp_path / "model")
    transformers.ViTImageProcessor(size={"height": 32, "width": 24}).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("scheme", ["", "hf:"])
def test_the_lens_of_a_folder_names_its_classes(scheme: str, folder: Path) -> None:
    result = run("lens", SCENE, "--model", f"{scheme}{folder}", "--json")
    assert result.exit_code == 0, result.stderr
    assert "bird " in result.stdout


def test_a_processor_that_does_not_fit_is_told_with_the_option(folder: Path) -> None:
    settings = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    changed = {**settings, "size": {"height": 40, "width": 24}}
    (folder / "preprocessor_config.json").write_text(json.dumps(changed), encoding="utf-8")
    result = run("lens", SCENE, "--model", folder)
    assert result.exit_code == 1
    assert "pass --img-size 40,24 to resample its positions" in result.stderr
    with pytest.warns(UserWarning, match="resampled to 5 × 3"):
        assert run("lens", SCENE, "--model", folder, "--img-size", "40,24").exit_code == 0


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    result = run("lens", SCENE, "--model", "hf:facebook/dinov2-small")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "the hub cannot be reached or has no such model" in result.stderr
    assert "--weights" not in result.stderr
    result = run("lens", SCENE, "--model", f"{tmp_path}/nowhere")
    assert result.stderr == f"error: cannot load '{tmp_path}/nowhere': no folder at '{tmp_path}/nowhere'\n"
    (tmp_path / "x.pth").touch()
    result = run("lens", SCENE, "--model", tmp_path)
    assert "pass an architecture of timm as --model, and --weights" in result.stderr
