"""The `hooked-vit` command: its sub-commands, one file for each in `analyses.commands`."""

from typing import Annotated

import typer

from analyses.commands.explain import explain
from analyses.commands.lens import lens
from analyses.commands.patch import patch
from analyses.commands.sweep import register as register_sweep
from analyses.commands.values import values

__all__ = ["app", "main"]

app = typer.Typer(
    name="hooked-vit",
    help="Look inside Vision Transformers: any timm model, your own pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(lens)
app.command()(explain)
app.command()(values)
app.command()(patch)
register_sweep(app)


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
    """What comes before a sub-command."""


def main() -> None:
    """Entry point of the `hooked-vit` script."""
    app()
