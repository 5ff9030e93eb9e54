"""`hooked-vit plot`: the tables of a sweep as figures."""

from pathlib import Path
from typing import Annotated

import typer

from analyses.commands.errors import user_errors
from analyses.commands.output import AsJson, Reporter

__all__ = ["plot"]


def plot(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that `hooked-vit sweep --out` wrote.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the figures. By default the sweep's folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw the tables of a sweep: one figure per analysis, or one per metric of your own analyses.

    Example: hooked-vit plot found --out figures
    """
    from analyses.catalogue import figures_of
    from analyses.progress import progress_bar
    from analyses.sweep.output import read_sweep

    report, target = Reporter("plot", as_json), out or folder
    with user_errors(ValueError, OSError):
        found = read_sweep(folder)
    with progress_bar(len(found.tables), show=report.progress, what="tables") as advance:
        for name, table in found.tables.items():
            with user_errors(ValueError):
                figures = figures_of(found.kind(name), table, found.n_classes)
            for suffix, figure in figures.items():
                report.save_figure(figure, target / f"{name}{suffix}.png", dpi=120)
            advance(1)
    report.close()
