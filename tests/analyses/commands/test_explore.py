"""`hooked-vit explore` writes one page, and reports errors in one line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from analyses.commands.cli import app
from analyses.data.emoji_scenes.sample_pictures import sample_scenes

SCENE = sample_scenes()[0]


def run(*arguments: object):
    return CliRunner().invoke(app, ["explore", *map(str, arguments)], env={"COLUMNS": "160"})


def test_a_page(tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    result = run(SCENE.path, "--class", "crocodile", "--class", 58, "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    page = out.read_text("utf-8")
    assert '<h1 title="scene_00.png">' in page
    assert '"shown":[23,58,' in page
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_by_default_the_page_is_named_after_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(SCENE.path, "--random-weights")
    assert result.exit_code == 0, result.output
    assert "emoji-vit, random weights" in (tmp_path / "scene_00-explore.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["no.png"], 1, "error: no picture at 'no.png'"),
        ([SCENE.path] * 3, 2, "a page shows one picture, or compares two, got 3"),
        ([SCENE.path, "--patching"], 2, "name two pictures"),
        ([SCENE.path, SCENE.path, "--patching"], 1, "two pictures that the model tells apart"),
        ([__file__], 1, "cannot be read as a picture"),
        ([SCENE.path, "--class", "crocodil"], 2, "did you mean 'crocodile'"),
        ([SCENE.path, "--class", "100"], 2, "class index 100 is out of range"),
        ([SCENE.path, "--out", "."], 2, "'.' is a folder"),
        ([SCENE.path, "--weights", "x.pt", "--random-weights"], 2, "exclude each other"),
    ],
)
def test_errors(arguments: list, status: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert (result.exit_code, result.output.count("error:")) == (status, 1)
    assert message in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())
