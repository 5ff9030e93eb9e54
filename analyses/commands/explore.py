"""`hooked-vit explore`: a picture and a model's view of it, as one interactive HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from analyses.commands.errors import USAGE, fail, user_errors
from analyses.commands.options import ModelOptions, grouped
from analyses.commands.output import AsJson, Reporter
from analyses.commands.pictures import read_picture, require_pictures

__all__ = ["explore"]


@grouped
def explore(
    *,
    image: Annotated[list[Path], typer.Argument(help="A picture, in any format that PIL reads.", show_default=False)],
    class_names: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="A class that the page must show, by name or index; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page. By default NAME-explore.html in the current folder."),
    ] = None,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Explore how a model processes a picture, in an interactive page for your browser.

    Point at a patch to see its top classes block by block; colour the picture by rank, logit, attention or importance;
    see the most active memories, and the contributions to the logit. The page is one file that needs no server and no
    network.

    Example: hooked-vit explore photo.jpg --model vit_base_patch16_224.augreg_in21k_ft_in1k --out photo.html
    """
    if len(image) > 1:
        fail(f"a page shows one picture, got {len(image)}: run the command once for each", USAGE)
    [path] = image
    require_pictures(path)
    target = out or Path(f"{path.stem}-explore.html")
    if target.is_dir():
        fail(f"--out must be a file, '{target}' is a folder", USAGE)

    from analyses.commands.class_names import class_indices
    from analyses.commands.load_model import load_model
    from analyses.pages.explorer.build import explore as make_page
    from analyses.progress import working

    report = Reporter("explore", as_json)
    picture = read_picture(path)
    vit = load_model(model, report.progress)
    classes = class_indices(vit, class_names)
    name = f"{model.model}, random weights" if model.random_weights else model.model
    with user_errors(ValueError, OSError):
        with working("making the page", report.progress):
            page = make_page(vit, picture, classes, title=path.name, model_name=name)
        page.save(target)
    report.add(**model.record, picture=str(path))
    report.wrote(target)
    report.close()
