"""`hooked-vit report`: the results of a sweep as one page."""

from pathlib import Path
from typing import Annotated

import typer

from analyses.commands.errors import user_errors
from analyses.commands.output import AsJson, Reporter

__all__ = ["report"]


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that `hooked-vit sweep --out` wrote.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page. By default DIR/report.html.")] = None,
    null: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The same sweep of the untrained model. By default DIR/null, if it exists."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name, if the sweep was run from Python.")
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The paper's model to compare with: B/32, B/16, L/16, MIIL, CIFAR, refinement or GAP. By default "
            "the one with the same weights, if any.",
        ),
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Also print the page to PDF, with an installed Chromium or Chrome.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a sweep into one page: figures, their definitions, and the values they are compared with.

    Each figure comes with definitions, numbers of images and tokens, intervals and, where they exist, the null control
    and the paper's published value. The page is one file that needs no network.

    Example: hooked-vit report found --pdf
    """
    from analyses.pages.report.build import report as make_report
    from analyses.progress import working

    reporter = Reporter("report", as_json)
    target = out or folder / "report.html"
    with user_errors(ValueError, OSError), working("drawing", reporter.progress):
        made = make_report(folder, null=null, model=model, published=published)
        written = [made.save(target)]
        if pdf:
            written.append(made.save_pdf(target.with_suffix(".pdf")))
    reporter.add(title=made.title)
    reporter.wrote(*written)
    reporter.close()
