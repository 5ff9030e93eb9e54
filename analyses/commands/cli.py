"""The `hooked-vit` command and its sub-commands, one file each in `analyses.commands`."""

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from analyses.commands.circuit import circuit
from analyses.commands.dictionary import dictionary
from analyses.commands.errors import FAILED, USAGE
from analyses.commands.explain import explain
from analyses.commands.explore import explore
from analyses.commands.lens import lens
from analyses.commands.models import models
from analyses.commands.patch import patch
from analyses.commands.plot import plot
from analyses.commands.prototypes import prototypes
from analyses.commands.report import report
from analyses.commands.reproduce import reproduce
from analyses.commands.sweep import sweep
from analyses.commands.tune import tune
from analyses.commands.values import values

__all__ = ["app", "main"]

COMMANDS = (
    lens,
    explore,
    explain,
    values,
    patch,
    circuit,
    dictionary,
    sweep,
    plot,
    report,
    reproduce,
    prototypes,
    tune,
    models,
)
"""In the order in which `--help` lists them; the last paragraph of each docstring is an example that works."""

_STATUS = (
    f"Exit status: 0 if all went well; {FAILED} if something could not be read, loaded or written; {USAGE} if an "
    "option or argument is invalid. Errors are lines on standard error that begin with 'error:'. Images that a sweep "
    "leaves out are reported there in a line that begins with 'skipped:', and do not change the exit status."
)


def _examples() -> str:
    """The end of `--help`, where each paragraph is a line."""
    return "\n\n".join(["Examples:", *(_example(command) for command in COMMANDS), " ", _STATUS])


def _example(command: Callable[..., None]) -> str:
    return " ".join((inspect.getdoc(command) or "").rpartition("Example: ")[2].split())


app = typer.Typer(
    name="hooked-vit",
    help="Look inside Vision Transformers: any timm model, your own pictures.",
    epilog=_examples(),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in COMMANDS:
    app.command()(_command)


def _print_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hooked-vit {version('hooked-vit')}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before a sub-command."""


def main() -> None:
    """Entry point of the `hooked-vit` script."""
    app()
