"""`hooked-vit plot`: the tables of a sweep as figures."""

from pathlib import Path
from typing import Annotated

import typer

from analyses.commands.user_errors import fail, user_errors

__all__ = ["plot"]


def plot(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `hooked-vit sweep --out` wrote.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the figures go; beside the tables, if not told.")
    ] = None,
) -> None:
    """Draw what a sweep has found: a figure TABLE-METRIC.png for each metric, over the blocks."""
    from analyses.plots.tidy import block_figures
    from analyses.sweeping.store import Store

    target = out or folder
    with user_errors(ValueError, OSError):
        store = Store(folder)
        record = store.read_record()
        if record is None:
            fail(f"no sweep in '{folder}': expected the folder that `hooked-vit sweep --out` wrote")
        if not record["finished"]:
            fail(f"the sweep in '{folder}' is not finished: run it again, and it goes on where it stopped")
        tables = store.read_tables(record["tables"])
        target.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            for metric, figure in block_figures(table).items():
                path = target / f"{name}-{metric}.png"
                figure.savefig(path, dpi=120)
                typer.echo(path)
