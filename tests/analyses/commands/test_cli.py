"""`hooked-vit lens` works on real files, and reports a user's mistakes in one line, without a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from analyses.commands.cli import app
from analyses.data.emoji_scenes.sample_pictures import sample_scenes
from hooked_vit import HookedViT

SCENE = sample_scenes()[3]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


def error_line(result: Result) -> str:
    """The one line on standard error."""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    return result.stderr


def test_a_table_and_a_figure_for_each_picture(tmp_path: Path) -> None:
    result = invoke("lens", SCENE.path, sample_scenes()[4].path, "--out", tmp_path / "new" / "out")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == [
        "scene_03-lens.png", "scene_04-lens.png",
    ]  # fmt: skip
    assert f"scene_03.png: {SCENE.class_names[0]}" in result.stdout
    assert result.stdout.count("top class at CLS") == 2


def test_pictures_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for name in ("a/cat.png", "b/cat.jpg", "c/CAT.png"):
        (tmp_path / name).parent.mkdir()
        SCENE.picture.save(tmp_path / name)
    pictures = [tmp_path / "a" / "cat.png", tmp_path / "b" / "cat.jpg", tmp_path / "c" / "CAT.png"]
    assert invoke("lens", *pictures, "--out", tmp_path / "out", "--blocks", "0,-1").exit_code == 0
    assert {path.name.casefold() for path in (tmp_path / "out").iterdir()} == {
        "cat-lens.png", "cat-lens-2.png", "cat-lens-3.png",
    }  # fmt: skip


def test_a_chosen_class_and_chosen_blocks(tmp_path: Path) -> None:
    by_name = invoke("lens", SCENE.path, "--class", "Pizza", "--blocks", "1,7", "--out", tmp_path)
    assert by_name.exit_code == 0, by_name.output
    assert "pizza on top" in " ".join(by_name.stdout.split())
    index = HookedViT.from_pretrained("emoji-vit").class_index("pizza")
    assert invoke("lens", SCENE.path, "--class", index, "--blocks", "1,7", "--out", tmp_path).stdout == by_name.stdout


def test_random_weights_are_the_same_each_time_and_need_no_network(tmp_path: Path) -> None:
    arguments = ("lens", SCENE.path, "--model", "test_vit", "--random-weights", "--blocks", "0", "--out", tmp_path)
    first, second = invoke(*arguments), invoke(*arguments)
    assert first.exit_code == 0, first.output
    assert first.stdout == second.stdout
    assert invoke("lens", SCENE.path, "--random-weights", "--blocks", "0", "--out", tmp_path).exit_code == 0


def test_weights_from_a_file(tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("test_vit", num_classes=5).state_dict(), tmp_path / "five.pt")
    result = invoke("lens", SCENE.path, "--model", "test_vit", "--weights", tmp_path / "five.pt", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "class " in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("lens", SCENE.path),
        ("explain", SCENE.path, "--method", "importance"),
        ("explore", SCENE.path),
        ("values", "--layer", 0, "--neuron", 1, "--top", 2),
    ],
    ids=lambda command: command[0],
)
def test_a_single_logit_is_refused_or_read_as_two_classes(command: tuple[object, ...], tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=1).state_dict(), tmp_path / "one.pt")
    out = tmp_path / ("page.html" if command[0] == "explore" else "out")
    arguments = (*command, "--model", "test_vit", "--weights", tmp_path / "one.pt", "--out", out)
    refused = invoke(*arguments)
    assert refused.exit_code == 1
    assert "'test_vit' has a single logit, and the command compares classes: --two-classes" in error_line(refused)
    assert not out.exists()
    result = invoke(*arguments, "--two-classes")
    assert result.exit_code == 0, result.output
    assert out.exists()
    if command[0] != "explore":
        assert "positive" in result.stdout


def test_only_a_single_logit_can_be_read_as_two_classes(tmp_path: Path) -> None:
    result = invoke("lens", SCENE.path, "--two-classes", "--out", tmp_path)
    assert result.exit_code == 2
    assert "splits a single logit, this model has 100 classes" in error_line(result)


def test_names_are_printed_as_they_are(tmp_path: Path) -> None:
    SCENE.picture.save(tmp_path / "[red]tom.png")
    result = invoke("lens", tmp_path / "[red]tom.png", "--blocks", "0", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "[red]tom.png:" in result.stdout
    assert "[red]tom-lens.png" in result.stdout.replace("\n", "")


def test_an_unreadable_picture_is_reported_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    whole = SCENE.path.read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    pictures = [tmp_path / "none.png", tmp_path / "notes.png", tmp_path / "half.png", SCENE.path]
    result = invoke("lens", *pictures, "--blocks", "0", "--out", tmp_path / "out")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == f"error: no picture at '{tmp_path / 'none.png'}'"
    assert "notes.png' cannot be read as a picture" in lines[1]
    assert "half.png' cannot be read as a picture" in lines[2]
    assert len(lines) == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scene_03-lens.png"]


def test_a_decompression_bomb_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    result = invoke("lens", SCENE.path, "--out", tmp_path)
    assert result.exit_code == 1
    assert "decompression bomb" in error_line(result)


def test_without_any_picture_nothing_is_loaded(tmp_path: Path) -> None:
    result = invoke("lens", tmp_path / "none.png", "--model", "not loaded", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "no picture at" in error_line(result)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--model", "vit_base_patch16_223"), 1, "unknown model 'vit_base_patch16_223'; did you mean"),
        (("--model", "vit_base_patch16_223", "--random-weights"), 1, "did you mean"),
        (("--model", "resnet18", "--random-weights"), 1, "not covered"),
        (("--model", "vit_tiny_patch16_224"), 1, "pass --weights FILE or --random-weights"),
        (("--class", "hotdo"), 2, "did you mean 'hotdog'"),
        (("--class", "100"), 2, "classes 0 to 99"),
        (("--blocks", "1,two"), 2, "numbers with commas"),
        (("--blocks", "8"), 2, "the model has blocks 0 to 7"),
        (("--device", "abacus"), 2, "no device 'abacus'"),
        (("--weights", "none.pt"), 1, "no weights file at 'none.pt'"),
        (("--weights", "none.pt", "--random-weights"), 2, "exclude each other"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    arguments: tuple[str, ...], status: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    result = invoke("lens", SCENE.path, "--out", tmp_path, *arguments)
    assert message in error_line(result)
    assert result.exit_code == status


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke("lens", SCENE.path, "--out", tmp_path / "file")
    assert result.exit_code == 1
    assert "File exists" in error_line(result)


def test_help_and_version_are_quick() -> None:
    assert "lens" in invoke("--help").stdout
    assert invoke("--version").stdout.startswith("hooked-vit ")
    code = "import analyses.commands.cli, sys; sys.exit(bool({'torch', 'timm', 'matplotlib'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
