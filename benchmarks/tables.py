"""The table of a benchmark: for the terminal, or as Markdown for the README."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str, markdown: bool) -> None:
    """Print rows of cells under a header; the title is for the terminal only."""
    if markdown:
        for row in (header, ["---"] * len(header), *rows):
            print("|", " | ".join(row), "|")
        return
    table = Table(*header, title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
