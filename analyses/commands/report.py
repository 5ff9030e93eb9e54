"""`hooked-vit report`: what a sweep has found, as one page."""

from pathlib import Path
from typing import Annotated

import typer

from analyses.commands.errors import user_errors
from analyses.commands.output import AsJson, Reporter

__all__ = ["report"]


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `hooked-vit sweep --out` wrote.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the page goes; DIR/report.html, if not told.")
    ] = None,
    null: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The same sweep of the untrained model; DIR/null, if `sweep --null-control` made it."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name, where the sweep was run from Python.")
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The paper's model to hold it against: B/32, B/16, L/16, MIIL, CIFAR, refinement or GAP. By default "
            "the one with the same weights, if any.",
        ),
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print the page to PDF, too, by a Chromium or Chrome that is installed here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn what a sweep has found into one page: figures, what they mean, and what they are held against.

    Each figure has its definition, numbers of images and tokens, intervals, the null control where there is one, and
    the paper's published value where there is one. The page is one file that needs no network.

    Example: hooked-vit report found --pdf
    """
    from analyses.pages.report.build import report as make
    from analyses.progress import working

    said = Reporter("report", as_json)
    target = out or folder / "report.html"
    with user_errors(ValueError, OSError), working("drawing", said.progress):
        made = make(folder, null=null, model=model, published=published)
        written = [made.save(target)]
        if pdf:
            written.append(made.save_pdf(target.with_suffix(".pdf")))
    said.add(title=made.title)
    said.wrote(*written)
    said.close()
