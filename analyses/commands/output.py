"""How a command tells what it found: tables and lines for people, or one JSON document for machines."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

__all__ = ["AsJson", "Reporter"]

_WIDE = 200  # columns, where a table goes into a pipe or a file

AsJson = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on standard output, with all tables and the paths of what is new."),
]
"""The option by which every command is asked for JSON."""


class Reporter:
    """What a command says on standard output, and to whom.

    People see lines, tables and paths as they come. With `as_json` nothing is printed before `close`, which prints
    one document:

    ```
    {"command": "lens", "version": "0.1.0", ..., "tables": {"lens": [{"block": 0, ...}, ...]}, "files": ["out/a.png"]}
    ```

    Tables are lists of rows; numbers that are missing or infinite are null. Errors are lines on standard error in
    either case.

    >>> report = Reporter("lens", as_json=True)
    >>> report.add(model="emoji-vit")
    >>> report.say("people alone read this")
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
        """Whether to show progress, as `progress_bar` takes it: never beside JSON, else on a terminal."""
        return False if self.as_json else None

    def add(self, **values: Any) -> None:
        """Put values into the document; people do not see them."""
        own = {name: self.document.pop(name) for name in ("tables", "files")}
        self.document |= values | own

    def add_table(self, name: str, table: "pd.DataFrame") -> None:
        """Put a table into the document, or more rows to one that is there; people do not see it."""
        rows = json.loads(str(table.to_json(orient="records", double_precision=15, default_handler=str)))
        self._tables.setdefault(name, []).extend(rows)

    def say(self, line: str) -> None:
        """Print a line for people."""
        if not self.as_json:
            typer.echo(line)

    def show(self, table: "Table", *, whole: bool = False) -> None:
        """Print a table for people; with `whole`, no name is cut, though lines may be longer than the terminal's."""
        if not self.as_json:
            from rich.console import Console

            console = Console()
            if not console.is_terminal and "COLUMNS" not in os.environ:
                console = Console(width=_WIDE)
            if whole:
                console = Console(width=max(console.width, Console(width=_WIDE).measure(table).maximum))
            console.print(table)

    def wrote(self, *paths: Path) -> None:
        """Tell of files that were written."""
        for path in paths:
            self._files.append(str(path))
            self.say(str(path))

    def close(self) -> None:
        """Print the document, if it is for a machine."""
        if self.as_json:
            typer.echo(json.dumps(self.document, ensure_ascii=False, allow_nan=False))
