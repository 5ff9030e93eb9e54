"""`hooked-vit tune`, and `--lens` in other commands: another lens, other numbers; a wrong one is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from analyses.commands.cli import app
from analyses.data.emoji_scenes.sample_pictures import sample_scenes
from analyses.tuned_lens import read_tuned_lens

SCENE = str(sample_scenes()[3].path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lens") / "lens.safetensors"
    result = run("tune", "--data", "emoji-scenes:20?seed=1", "--limit", "8", "--seed", "3", "--out", path)
    assert result.exit_code == 0, result.output
    assert "8 pictures; variance of the last stream explained before each block, in pictures held out:" in result.stdout
    assert "-0" not in result.stdout
    assert "warning: 8 pictures have 520 tokens, few for maps of width 128" in result.stderr
    return path


def test_the_file_and_its_record(lens: Path) -> None:
    record = json.loads(lens.with_suffix(".json").read_text("utf-8"))
    read = read_tuned_lens(lens)
    assert (record["n_images"], record["seed"], record["fingerprint"]) == (8, 3, read.fingerprint)
    assert read.record["model"]["weights_sha256"] == record["model"]["weights_sha256"]


def test_lens_and_sweep_project_through_it(lens: Path, tmp_path: Path) -> None:
    blocks = {}
    for name, options in (("direct", []), ("tuned", ["--lens", lens])):
        result = run("lens", SCENE, *options, "--out", tmp_path / name, "--json")
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        assert document.get("lens") == (str(lens) if options else None)
        blocks[name] = document["tables"]["lens"]
        common = ("sweep", "--data", "emoji-scenes:4", "--out", tmp_path / f"sweep-{name}")
        assert run(*common, *options, "--analyses", "identifiability,updates").exit_code == 0
    assert blocks["direct"][-1] == blocks["tuned"][-1]
    assert blocks["direct"] != blocks["tuned"]
    tables = [pd.read_parquet(tmp_path / f"sweep-{name}" / "identifiability.parquet") for name in blocks]
    direct, tuned = (
        table[table["metric"] == "identifiability"].set_index(["layer", "token_type", "region"]) for table in tables
    )
    assert direct.loc[7, "value"].equals(tuned.loc[7, "value"])
    assert not direct.loc[3, "value"].equals(tuned.loc[3, "value"])
    record = json.loads((tmp_path / "sweep-tuned" / "record.json").read_text("utf-8"))
    assert record["asked"]["lens"] == str(lens)
    assert record["analyses"]["identifiability"]["options"]["lens"]["weight"]["sha256"]
    again = run("sweep", "--data", "emoji-scenes:4", "--out", tmp_path / "sweep-tuned", "--analyses", "identifiability")
    assert again.exit_code == 1
    assert "holds the tables of another sweep" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--lens", "nowhere.safetensors"], 1, "no file with a tuned lens at 'nowhere.safetensors'"),
        (["--lens", "LENS", "--model", "emoji-vit-gap"], 1, "with other weights: fit one to this model"),
        (["--lens", "LENS", "--random-weights"], 1, "with other weights: fit one to this model"),
        (["--lens", "LENS", "--null-control"], 2, "a lens fits one model"),
        (["--lens", "LENS", "--analyses", "faithfulness"], 2, "--lens is for identifiability, updates, "),
    ],
)
def test_wrong_lenses_are_refused(arguments: list[str], status: int, message: str, lens: Path, tmp_path: Path) -> None:
    arguments = [str(lens) if argument == "LENS" else argument for argument in arguments]
    result = run("sweep", "--data", "emoji-scenes:2", "--out", tmp_path / "found", *arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert message in result.stderr


def test_a_sweep_over_the_pictures_of_the_lens_is_refused(lens: Path, tmp_path: Path) -> None:
    result = run("sweep", "--data", "emoji-scenes:4?seed=1", "--out", tmp_path / "found", "--lens", lens)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the lens was fitted to images of this dataset" in result.stderr


def test_a_lens_for_cls_alone_draws_no_patches(lens: Path, tmp_path: Path) -> None:
    read = read_tuned_lens(lens)
    replace(read, record={**read.record, "tokens": "read"}).save(tmp_path / "cls.safetensors")
    result = run("lens", SCENE, "--lens", tmp_path / "cls.safetensors", "--out", tmp_path / "maps")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the lens was fitted to CLS alone" in result.stderr


def test_errors_of_tune(tmp_path: Path) -> None:
    for options, message in (
        (["--out", tmp_path / "lens.pt"], "--out is a .safetensors file"),
        (["--tokens", "cls", "--out", tmp_path / "lens.safetensors"], "--tokens is all or read, not 'cls'"),
        (["--alpha", "0", "--out", tmp_path / "lens.safetensors"], "alpha must be above 0"),
        (["--tokens", "read", "--out", tmp_path / "lens.safetensors"], "too few for maps of width 128"),
    ):
        result = run("tune", "--data", "emoji-scenes:2", *options)
        assert result.exit_code in (1, 2)
        assert message in result.stderr
        assert list(tmp_path.iterdir()) == []
