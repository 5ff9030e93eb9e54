"""`hooked-vit sweep --perturb`: tables, figures, the record, and errors before a model is loaded."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from analyses.commands.cli import app


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)], env={"COLUMNS": "200"})


def test_perturbations_by_name(tmp_path: Path) -> None:
    perturbed = ["--perturb", "occlusion:0.25", "--perturb", "background"]
    data = ["--data", "emoji-scenes:4?seed=9", "--analyses", "robustness,failure-prediction"]
    result = invoke(*data, *perturbed, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert set(pd.read_parquet(tmp_path / "robustness.parquet")["perturbation"]) == {"occlusion_0.25", "background"}
    conditions = set(pd.read_parquet(tmp_path / "failure_prediction.parquet")["condition"])
    assert conditions == {"clean", "occlusion_0.25", "background"}
    options = json.loads((tmp_path / "record.json").read_text())["analyses"]["robustness"]["options"]
    assert options["perturbations"]["occlusion_0.25"]["share"] == 0.25
    plotted = CliRunner().invoke(app, ["plot", str(tmp_path), "--out", str(tmp_path / "figures")])
    assert plotted.exit_code == 0, plotted.output
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"robustness.png", "failure_prediction.png"}


@pytest.mark.parametrize(
    ("analyses", "specs", "message"),
    [
        ("identifiability", ["blur"], "--perturb is for robustness and failure-prediction"),
        ("robustness", ["blurr"], "unknown perturbation 'blurr'"),
        ("robustness", ["occlusion:7"], "expected a share of patches above 0 and up to 1, got 7"),
        ("robustness", ["blur", "blur"], "expected each perturbation once"),
    ],
)
def test_errors(tmp_path: Path, analyses: str, specs: list[str], message: str) -> None:
    options = [part for spec in specs for part in ("--perturb", spec)]
    result = invoke("--model", "no-such-model", "--data", "emoji-scenes:4", "--analyses", analyses, *options, "--out",
                    tmp_path / "out")  # fmt: skip
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_package_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    result = invoke("--data", "emoji-scenes:4", "--analyses", "robustness", "--perturb", "fog:3", "--out", tmp_path)
    assert result.exit_code == 1
    assert "pip install 'hooked-vit[robustness]'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_backgrounds_need_scenes(tmp_path: Path) -> None:
    from analyses.data import EmojiScenes

    (tmp_path / "pictures" / "dog").mkdir(parents=True)
    EmojiScenes(1, seed=0).picture(0).save(tmp_path / "pictures" / "dog" / "0.png")
    result = invoke("--data", f"folder:{tmp_path / 'pictures'}", "--analyses", "robustness", "--perturb", "background",
                    "--out", tmp_path / "out")  # fmt: skip
    assert result.exit_code == 2
    assert "backgrounds can be swapped in Emoji Scenes only, got ImageFolder" in result.stderr
