"""`hooked-vit prototypes`, and its file in other commands: classes for a model without a head by two commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from analyses.commands.cli import app
from analyses.prototypes import read_class_embeddings

HEADLESS = ("--model", "test_vit", "--img-size", "64,96", "--device", "cpu")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a head, trained at 160 pixels, and three folders of pictures."""
    folder, rng = tmp_path_factory.mktemp("headless"), np.random.default_rng(4)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), folder / "weights.pth")
    for name, brightness in (("night", 60), ("day", 160), ("noon", 250)):
        (folder / "pictures" / name).mkdir(parents=True)
        for index in range(3):
            pixels = rng.integers(brightness - 60, brightness, (40, 50, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{index}.png")
    weights = ("--weights", folder / "weights.pth", *HEADLESS)
    assert run("prototypes", folder / "pictures", *weights, "--out", folder / "classes.safetensors").exit_code == 0
    return folder


def test_two_commands_give_a_headless_model_classes(folder: Path, tmp_path: Path) -> None:
    picture = folder / "pictures" / "noon" / "1.png"
    classes = ("--weights", folder / "weights.pth", *HEADLESS, "--class-embeddings", folder / "classes.safetensors")
    lens = run("lens", picture, *classes, "--out", tmp_path, "--json")
    assert lens.exit_code == 0, lens.output
    document = json.loads(lens.stdout)
    assert document["img_size"] == [64, 96]
    assert document["class_embeddings"] == str(folder / "classes.safetensors")
    assert {row["top_at_cls"] for row in document["tables"]["lens"]} <= {"day", "night", "noon"}
    commands = {
        "explain": [picture, "--method", "importance", "--class", "noon"],
        "explore": [picture],
        "patch": [picture, folder / "pictures" / "day" / "1.png", "--class", "noon", "--against", "day"],
        "values": ["--layer", "-1", "--class", "noon", "--top", "2"],
        "sweep": ["--data", f"folder:{folder / 'pictures'}", "--analyses", "identifiability"],
    }
    for name, arguments in commands.items():
        out = tmp_path / (f"{name}.html" if name == "explore" else name)
        result = run(name, *arguments, *classes, "--out", out)
        assert result.exit_code == 0, (name, result.output)


def test_the_command_says_how_many_are_right_when_held_out(folder: Path, tmp_path: Path) -> None:
    arguments = ("prototypes", folder / "pictures", "--weights", folder / "weights.pth", *HEADLESS)
    result = run(*arguments, "--out", tmp_path / "x.safetensors", "--method", "ridge", "--pool", "cls_and_mean")
    assert result.exit_code == 0, result.output
    assert "9 pictures of 3 classes: " in result.stdout
    assert " % right when held out, 33.3 % by chance" in result.stdout
    made = read_class_embeddings(tmp_path / "x.safetensors")
    assert (made.class_names, made.pool, made.how["method"]) == (("day", "night", "noon"), "cls_and_mean", "ridge")
    few = run(*arguments, "--out", tmp_path / "few.safetensors", "--shots", 1, "--json")
    assert json.loads(few.stdout)["tables"]["classes"][0] == {"class_name": "day", "pictures": 1}
    assert json.loads(few.stdout)["held_out_accuracy"] is None


def test_names_from_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("first\nsecond\nthird\n")
    np.save(tmp_path / "classes.npy", read_class_embeddings(folder / "classes.safetensors").weight.numpy())
    arguments = ("values", "--layer", 0, "--neuron", 1, "--out", tmp_path, "--weights", folder / "weights.pth")
    arguments = (*arguments, *HEADLESS, "--class-embeddings", tmp_path / "classes.npy", "--top", 3)
    assert "class 0" in run(*arguments).stdout
    assert "second" in run(*arguments, "--class-names", tmp_path / "names.txt").stdout
    (tmp_path / "names.txt").write_text("first\n")
    result = run(*arguments, "--class-names", tmp_path / "names.txt")
    assert result.exit_code == 1
    assert "expected 3 class names, one for each class, got 1" in result.stderr
    assert "no file with class names" in run(*arguments, "--class-names", tmp_path / "none.txt").stderr
    assert "no file with class embeddings" in run(*arguments, "--class-embeddings", tmp_path / "none.npy").stderr


def test_names_for_the_models_own_head_and_for_a_single_logit(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("absent\npresent\n")
    torch.save(timm.create_model("test_vit", num_classes=2).state_dict(), tmp_path / "two.pth")
    torch.save(timm.create_model("test_vit", num_classes=1).state_dict(), tmp_path / "one.pth")
    common = ("values", "--layer", 0, "--neuron", 1, "--top", 2, "--model", "test_vit", "--out", tmp_path)
    common = (*common, "--class-names", tmp_path / "names.txt", "--weights")
    for arguments in ((tmp_path / "two.pth",), (tmp_path / "one.pth", "--two-classes")):
        result = run(*common, *arguments)
        assert "present" in result.stdout, result.output


def test_sizes(tmp_path: Path) -> None:
    scene = ("values", "--layer", 0, "--neuron", 1, "--out", tmp_path)
    result = run(*scene, "--model", "test_vit", "--random-weights", "--img-size", "12x12")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: --img-size takes height and width in pixels, such as 224,336, or one number, got '12x12'\n"
    )
    result = run(*scene, "--img-size", "32")
    assert result.stderr == "error: 'emoji-vit' has one image size only: leave out --img-size\n"
    assert run(*scene, "--model", "test_vit", "--random-weights", "--img-size", "64").exit_code == 0


def test_folders_and_files_that_are_wrong(folder: Path, tmp_path: Path) -> None:
    assert run("prototypes", folder / "pictures", "--out", "x.npy").exit_code == 2
    result = run("prototypes", tmp_path / "none", "--out", tmp_path / "x.safetensors")
    assert (result.exit_code, result.stderr.startswith("error: no folder")) == (1, True)
    result = run("prototypes", folder / "pictures", "--out", tmp_path / "x.safetensors", "--method", "median")
    assert (result.exit_code, result.stderr) == (2, "error: --method is mean or ridge, not 'median'\n")
    result = run("prototypes", folder / "pictures", "--out", tmp_path / "x.safetensors", "--pool", "map")
    assert (result.exit_code, result.stderr) == (2, "error: --pool is cls, avg or cls_and_mean, not 'map'\n")
    assert not (tmp_path / "x.safetensors").exists()
