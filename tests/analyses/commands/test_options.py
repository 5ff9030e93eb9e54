"""Groups of options become options of their commands; class names, numbers and pictures are read in one place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from analyses.commands.class_names import class_index, class_indices
from analyses.commands.options import ModelOptions, grouped, parse_numbers
from analyses.commands.pictures import existing_pictures, read_picture, require_pictures
from hooked_vit import HookedViT


@dataclass(frozen=True)
class Size:
    """Options with and without a default."""

    width: Annotated[int, typer.Option(help="The width.")]
    height: Annotated[int, typer.Option("--high", help="The height.")] = 7


def invoke(*arguments: str) -> str:
    """The output of a command with a group of options."""
    app = typer.Typer()

    @app.command()
    @grouped
    def draw(*, name: Annotated[str, typer.Argument()], size: Size, bold: bool = False) -> None:
        """Draw something."""
        typer.echo(f"{name} {size} {bold}")

    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"}).output


def test_each_field_of_a_group_is_an_option() -> None:
    assert invoke("cat", "--width", "3") == "cat Size(width=3, height=7) False\n"
    assert invoke("cat", "--width", "3", "--high", "4", "--bold") == "cat Size(width=3, height=4) True\n"


def test_help_shows_the_options_of_a_group_and_required_ones_are_required() -> None:
    shown = invoke("--help")
    assert "Draw something." in shown
    assert "The height." in shown
    assert "Missing option '--width'" in invoke("cat")


def test_the_record_of_a_model_has_its_name_and_whether_it_is_random() -> None:
    assert ModelOptions("x", device="cpu").record == {"model": "x", "random_weights": False}
    assert ModelOptions("x", two_classes=True).record == {"model": "x", "random_weights": False, "two_classes": True}


def test_numbers() -> None:
    assert parse_numbers("--blocks", "0, 4,-1") == [0, 4, -1]
    with pytest.raises(ValueError, match=r"--blocks takes numbers with commas between them, such as 0,4,8, got '1;2'"):
        parse_numbers("--blocks", "1;2")


def test_classes_are_named_or_numbered(capsys: pytest.CaptureFixture) -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    assert class_indices(model, ["pizza", "3"]) == [model.class_index("pizza"), 3]
    assert class_indices(model, None) == []
    with pytest.raises(typer.Exit) as ended:
        class_index(model, "pizzza")
    assert ended.value.exit_code == 2
    assert "did you mean 'pizza'" in capsys.readouterr().err


def test_pictures_that_are_missing_or_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    missing, notes = tmp_path / "none.png", tmp_path / "notes.png"
    assert existing_pictures([missing, notes]) == [notes]
    assert capsys.readouterr().err == f"error: no picture at '{missing}'\n"
    for read in (lambda: require_pictures(notes, missing), lambda: read_picture(notes)):
        with pytest.raises(typer.Exit) as ended:
            read()
        assert ended.value.exit_code == 1
        assert capsys.readouterr().err.count("\n") == 1
