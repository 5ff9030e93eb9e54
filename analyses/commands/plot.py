"""`hooked-vit plot`: the tables of a sweep as figures."""

from pathlib import Path
from typing import Annotated

import typer

from analyses.commands.errors import user_errors
from analyses.commands.output import AsJson, Reporter

__all__ = ["plot"]


def plot(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `hooked-vit sweep --out` wrote.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the figures go; beside the tables, if not told.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw what a sweep has found: a figure for each analysis, or, of analyses of your own, for each metric.

    Example: hooked-vit plot found --out figures
    """
    from analyses.catalogue import figures_of
    from analyses.progress import progress_bar
    from analyses.sweep.output import read_sweep

    report, target = Reporter("plot", as_json), out or folder
    with user_errors(ValueError, OSError):
        found = read_sweep(folder)
        target.mkdir(parents=True, exist_ok=True)
        with progress_bar(len(found.tables), show=report.progress, what="tables") as advance:
            for name, table in found.tables.items():
                for suffix, figure in figures_of(found.kind(name), table, found.n_classes).items():
                    path = target / f"{name}{suffix}.png"
                    figure.savefig(path, dpi=120)
                    report.wrote(path)
                advance(1)
    report.close()
