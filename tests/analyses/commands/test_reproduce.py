"""`hooked-vit reproduce` tells the cost first, runs what it can, and writes one page."""

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from analyses.commands import reproduce as command
from analyses.commands.cli import app
from analyses.reproduction import Study, rehearsal_studies


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["reproduce", *arguments])


def two_small_studies(*args: object) -> list[Study]:
    _, study, other = rehearsal_studies(4)
    return [study, dataclasses.replace(other, needs="its weights")]


def test_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_studies", two_small_studies)
    arguments = ("--rehearse", "4", "--batch-size", "4", "--out", str(tmp_path))
    first = invoke(*arguments, "--estimate")
    assert first.exit_code == 0
    assert "emoji-vit-gap: 4 images, about" in first.stdout
    assert "emoji-vit-context: left out: it needs its weights" in first.stdout
    assert not list(tmp_path.iterdir())
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    costs = {row["model"]: row for row in document["tables"]["cost"]}
    assert costs["emoji-vit-context"]["left_out"] == "it needs its weights"
    assert costs["emoji-vit-gap"]["n_images"] == 4
    assert {row["verdict"] for row in document["tables"]["claims"]} <= {"holds", "undecided", "does not hold"}
    page = (tmp_path / "reproduction.html").read_text("utf-8")
    assert "Models that were not run" in page
    assert invoke(*arguments).stdout.count("finished") == 1


def test_nothing_at_hand(tmp_path: Path) -> None:
    result = invoke("--data", "imagenet-s:missing", "--models", "cifar,refinement", "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "error: no model could be run: ViT-B/16-CIFAR: it needs its weights" in result.stderr
    assert not (tmp_path / "out" / "reproduction.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --data imagenet-s:DIR?n=5, or --rehearse N"),
        (("--data", "imagenet-s:A", "--rehearse", "4"), "give either --data"),
        (("--data", "imagenet-s:A", "--models", "b23"), "no model 'b23' in the paper"),
        (("--data", "imagenet-s:A", "--weights", "x.pth"), "--weights takes NAME=FILE"),
        (("--rehearse", "0"), "at least one scene, got 0"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*arguments, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert message in result.stderr
