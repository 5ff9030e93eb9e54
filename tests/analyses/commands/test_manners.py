"""What all commands have in common: an example that works, JSON alone on standard output, exit statuses, no noise."""

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
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pair of pictures and a small sweep."""
    place = tmp_path_factory.mktemp("place")
    scenes = EmojiScenes(4, seed=11, scale=(0.6, 0.8))
    scenes.picture(2).save(place / "clean.png")
    scenes.swap_object().picture(2).save(place / "corrupt.png")
    arguments = ["sweep", "--data", "emoji-scenes:4", "--analyses", "identifiability", "--out", str(place / "found")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return place


def arguments_of(name: str, place: Path) -> list[str]:
    """A run of the command that is quick."""
    out = ["--out", str(place / f"{name}-out")]
    return [name, *{
        "lens": [SCENE, "--blocks", "0,7", *out],
        "explore": [SCENE, "--out", str(place / "page.html")],
        "explain": [SCENE, "--method", "importance", "--method", "rollout", *out],
        "values": ["--layer", "6", "--neuron", "4,8", "--data", "emoji-scenes:4", *out],
        "patch": [str(place / "clean.png"), str(place / "corrupt.png"), "--class", "dog", "--against", "cat", *out],
        "sweep": ["--data", "emoji-scenes:4", "--analyses", "identifiability", *out],
        "plot": [str(place / "found"), *out],
        "report": [str(place / "found"), "--out", str(place / "report.html")],
        "models": ["test_vit"],
    }[name]]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_json_is_one_document_and_nothing_else(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # on a terminal, too
    monkeypatch.setattr(progress, "Console", lambda **options: Console(force_terminal=True, **options))
    result = CliRunner().invoke(app, [*arguments_of(name, place), "--json"])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    document = json.loads(result.stdout, parse_constant=pytest.fail)
    assert document["command"] == name
    if name not in ("explore", "report", "plot"):
        assert document["tables"]
        assert all(rows for table, rows in document["tables"].items() if table != "skipped")
    assert all(Path(path).is_file() for path in document["files"])
    assert bool(document["files"]) == (name != "models")


@pytest.mark.parametrize("name", NAMES)
def test_piped_output_says_nothing_on_standard_error(name: str, place: Path) -> None:
    result = CliRunner().invoke(app, arguments_of(name, place))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "\x1b" not in result.stdout


def test_tables_as_json_hold_the_numbers_of_the_files(place: Path) -> None:
    result = CliRunner().invoke(app, [*arguments_of("sweep", place), "--json"])
    rows = json.loads(result.stdout)["tables"]["identifiability"]
    table = pd.read_parquet(place / "sweep-out" / "identifiability.parquet")
    assert len(rows) == len(table)
    assert [row["value"] for row in rows] == pytest.approx(table["value"].tolist(), rel=1e-12)
    missing = table["p_value"].isna().tolist()
    assert [row["p_value"] is None for row in rows] == missing
    assert any(missing)


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_every_command_explains_itself_with_an_example_that_parses(command: Callable[..., None]) -> None:
    said = " ".join((inspect.getdoc(command) or "").partition("Example: ")[2].split())
    program, name, *arguments = shlex.split(said)
    assert (program, name) == ("hooked-vit", command.__name__)
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    group.commands[name].make_context(name, arguments)  # pyright: ignore
    for arguments in ([name, "--help"], ["--help"]):
        shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
        assert shown.exit_code == 0
        assert said in " ".join(shown.stdout.split())


def test_help_documents_the_exit_statuses() -> None:
    shown = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "300"}).stdout.split())
    assert "0 if all went well; 1 if something could not be read, loaded or written; 2 if" in shown


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


def test_progress_is_shown_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
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
def test_commands_that_take_long_count(
    name: str, counted: str, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(progress, "Console", lambda **options: Console(force_terminal=True, **options))
    arguments = [str(tmp_path / "new") if one.endswith(f"{name}-out") else one for one in arguments_of(name, place)]
    assert counted in CliRunner().invoke(app, arguments).stderr
