"""The output of a command: tables, lines and files for people, or one JSON document for programs."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyses.commands.errors import user_errors

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.table import Table

__all__ = ["AsJson", "Reporter", "make_folder"]

_WIDE = 200  # columns of a table in a pipe or a file

AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON document with all tables and the paths of the files that were written."
    ),
]
"""The option of every command for JSON output."""


class Reporter:
    """Standard output of a command, and the files that it writes.

    For people, lines, tables and paths are printed at once. With `as_json` nothing is printed before `close`, which
    prints one document:

    ```
    {"command": "lens", "version": "0.1.0", ..., "tables": {"lens": [{"block": 0, ...}, ...]}, "files": ["out/a.png"]}
    ```

    Tables are lists of rows; missing and infinite numbers are null. Errors are lines on standard error in either case.

    >>> report = Reporter("lens", as_json=True)
    >>> report.add(model="emoji-vit")
    >>> report.say("for people only")
    >>> report.wrote(Path("a.png"))
    >>> sorted(report.document)
    ['command', 'files', 'model', 'tables', 'version']
    """

    def __init__(self, command: str, as_json: bool):
        self.document: dict[str, Any] = {"command": command, "version": version("hooked-vit")}
        self.as_json = as_json
        self._tables: dict[str, list[dict[str, Any]]] = {}
        self._files: list[str] = []
        self.document |= {"tables": self._tables, "files": self._files}

    @property
    def progress(self) -> bool | None:
        """Whether to show progress, as `progress_bar` takes it: never with JSON, otherwise on a terminal."""
        return False if self.as_json else None

    def add(self, **values: Any) -> None:
        """Add values to the document only."""
        own = {name: self.document.pop(name) for name in ("tables", "files")}
        self.document |= values | own

    def add_table(self, name: str, table: "pd.DataFrame") -> None:
        """Add a table, or more rows of an existing one, to the document only."""
        rows = json.loads(str(table.to_json(orient="records", double_precision=15, default_handler=str)))
        self._tables.setdefault(name, []).extend(rows)

    def say(self, line: str) -> None:
        """Print a line for people."""
        if not self.as_json:
            typer.echo(line)

    def show(self, table: "Table", *, whole: bool = False) -> None:
        """Print a table for people; with `whole`, no name is cut, even if lines are wider than the terminal."""
        if not self.as_json:
            from rich.console import Console

            console = Console()
            if not console.is_terminal and "COLUMNS" not in os.environ:
                console = Console(width=_WIDE)
            if whole:
                console = Console(width=max(console.width, Console(width=_WIDE).measure(table).maximum))
            console.print(table)

    def save_figure(self, figure: "Figure", path: Path, dpi: int | None = None) -> None:
        """Write a figure and report the file, or end the command with a line that says why it cannot be written."""
        make_folder(path.parent)
        with user_errors(OSError):
            figure.savefig(path, dpi="figure" if dpi is None else dpi)
        self.wrote(path)

    def save_csv(self, table: "pd.DataFrame", path: Path) -> None:
        """Write a table and report the file, or end the command with a line that says why it cannot be written."""
        make_folder(path.parent)
        with user_errors(OSError):
            table.to_csv(path, index=False)
        self.wrote(path)

    def wrote(self, *paths: Path) -> None:
        """Report files that were written."""
        for path in paths:
            self._files.append(str(path))
            self.say(str(path))

    def close(self) -> None:
        """Print the document, with `as_json`."""
        if self.as_json:
            typer.echo(json.dumps(self.document, ensure_ascii=False, allow_nan=False))


def make_folder(path: Path) -> None:
    """Create a folder, or end the command with a line that says why it cannot be created."""
    with user_errors(OSError):
        path.mkdir(parents=True, exist_ok=True)
