"""Common to all commands: an example that works, only JSON with --json, exit statuses, no noise."""

import inspect
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pandas as pd
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from analyses import progress
from analyses.commands.cli import COMMANDS, app, main
from analyses.commands.load_model import load_model
from analyses.commands.options import ModelOptions
from analyses.data.emoji_scenes.sample_pictures import sample_scenes
from analyses.data.emoji_scenes.scenes import EmojiScenes

NAMES = [command.__name__ for command in COMMANDS]
SCENE = str(sample_scenes()[3].path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pair of pictures and a small sweep."""
    folder = tmp_path_factory.mktemp("folder")
    scenes = EmojiScenes(4, seed=11, scale=(0.6, 0.8))
    scenes.picture(2).save(folder / "clean.png")
    scenes.swap_object().picture(2).save(folder / "corrupt.png")
    for index in range(4):
        (folder / "pictures" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        scenes.picture(index).save(folder / "pictures" / "ab"[index % 2] / f"{index}.png")
    arguments = ["sweep", "--data", "emoji-scenes:4", "--analyses", "identifiability", "--out", str(folder / "found")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return folder


def arguments_of(name: str, folder: Path) -> list[str]:
    """Arguments of a quick run of the command."""
    out = ["--out", str(folder / f"{name}-out")]
    return [name, *{
        "lens": [SCENE, "--blocks", "0,7", *out],
        "explore": [SCENE, "--out", str(folder / "page.html")],
        "explain": [SCENE, "--method", "importance", "--method", "rollout", *out],
        "values": ["--layer", "6", "--neuron", "4,8", "--data", "emoji-scenes:4", *out],
        "patch": [str(folder / "clean.png"), str(folder / "corrupt.png"), "--class", "dog", "--against", "cat", *out],
        "circuit": [str(folder / "clean.png"), str(folder / "corrupt.png"), "--class", "dog", "--against", "cat",
                    "--edges", "12", "--method", "eap", "--out", str(folder / "circuit.html")],
        "dictionary": ["train", "--data", "emoji-scenes:4", "--d-dict", "64", "--k", "4", "--layer", "5", *out],
        "sweep": ["--data", "emoji-scenes:4", "--analyses", "identifiability", *out],
        "plot": [str(folder / "found"), *out],
        "report": [str(folder / "found"), "--out", str(folder / "report.html")],
        "prototypes": [str(folder / "pictures"), "--out", str(folder / "classes.safetensors")],
        "tune": ["--data", "emoji-scenes:12", "--out", str(folder / "lens.safetensors")],
        "reproduce": ["--data", "imagenet-s:DIR", "--models", "cifar", "--estimate", *out],
        "models": ["test_vit"],
    }[name]]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_json_is_one_document_and_nothing_else(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # on a terminal, too
    monkeypatch.setattr(progress, "Console", lambda **options: Console(force_terminal=True, **options))
    result = CliRunner().invoke(app, [*arguments_of(name, folder), "--json"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    document = json.loads(result.stdout, parse_constant=pytest.fail)
    assert document["command"] == name
    if name not in ("explore", "report", "plot"):
        assert document["tables"]
        assert all(rows for table, rows in document["tables"].items() if table != "skipped")
    assert all(Path(path).is_file() for path in document["files"])
    assert bool(document["files"]) == (name not in ("models", "reproduce"))


@pytest.mark.parametrize("name", NAMES)
def test_piped_output_says_nothing_on_standard_error(name: str, folder: Path) -> None:
    result = CliRunner().invoke(app, arguments_of(name, folder))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "\x1b" not in result.stdout


def test_tables_as_json_hold_the_numbers_of_the_files(folder: Path) -> None:
    result = CliRunner().invoke(app, [*arguments_of("sweep", folder), "--json"])
    rows = json.loads(result.stdout)["tables"]["identifiability"]
    table = pd.read_parquet(folder / "sweep-out" / "identifiability.parquet")
    assert len(rows) == len(table)
    assert [row["value"] for row in rows] == pytest.approx(table["value"].tolist(), rel=1e-12)
    missing = table["p_value"].isna().tolist()
    assert [row["p_value"] is None for row in rows] == missing
    assert any(missing)


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_the_help_of_every_command_has_an_example_that_parses(command: Callable[..., None]) -> None:
    example = " ".join((inspect.getdoc(command) or "").partition("Example: ")[2].split())
    program, name, *arguments = shlex.split(example)
    assert (program, name) == ("hooked-vit", command.__name__)
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    group.commands[name].make_context(name, arguments)  # pyright: ignore
    for arguments in ([name, "--help"], ["--help"]):
        shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
        assert shown.exit_code == 0
        assert example in " ".join(shown.stdout.split())


def test_help_documents_the_exit_statuses() -> None:
    shown = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "300"}).stdout.split())
    assert "0 if all went well; 1 if something could not be read, loaded or written; 2 if" in shown
    assert "in a line that begins with 'skipped:', and do not change the exit status" in shown


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["models", "emoji"], 0),
        (["models", "no such model at all"], 1),
        (["plot", "nowhere"], 1),
        (["plot"], 2),
        (["models", "--colour"], 2),
        (["--flag"], 2),
        (["paint"], 2),
    ],
)
def test_exit_statuses_of_the_program(
    arguments: list[str],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hooked-vit", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code or 0) == status
    assert bool(capsys.readouterr().err) == (status > 0)


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(progress, "Console", lambda **options: Console(force_terminal=True, **options))
    with progress.progress_bar(3, what="pictures") as advance:
        advance(2)
    shown = capsys.readouterr()
    assert "2/3" in shown.err
    assert "pictures" in shown.err
    assert shown.out == ""
    load_model(ModelOptions("emoji-vit"))
    assert "loading emoji-vit" in capsys.readouterr().err
    load_model(ModelOptions("emoji-vit"), progress=False)
    with progress.progress_bar(3, show=False) as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("lens", "pictures"),
        ("explain", "methods"),
        ("patch", "patches"),
        ("values", "images"),
        ("sweep", "images"),
        ("plot", "tables"),
    ],
)
def test_slow_commands_show_progress(
    name: str, counted: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(progress, "Console", lambda **options: Console(force_terminal=True, **options))
    arguments = [
        str(tmp_path / "new") if argument.endswith(f"{name}-out") else argument
        for argument in arguments_of(name, folder)
    ]
    assert counted in CliRunner().invoke(app, arguments).stderr
