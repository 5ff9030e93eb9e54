"""`hooked-vit explore`: a picture, or two, and a model's view of it, as one interactive HTML page."""

from contextlib import nullcontext
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
    image: Annotated[
        list[Path],
        typer.Argument(help="A picture, in any format that PIL reads; or two, to compare them.", show_default=False),
    ],
    class_names: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="A class that the page must show, by name or index; repeatable."),
    ] = None,
    patching: Annotated[
        bool,
        typer.Option(
            "--patching",
            help="Of two pictures: copy parts of the first one's run into the second's, one at a time, and show how "
            "much of the difference each restores. Takes a run for each block and token, and each block and head.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page. By default NAME-explore.html in the current folder."),
    ] = None,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Explore how a model processes a picture, in an interactive page for your browser.

    Each patch has the colour of its top class. Play through the blocks; point at a patch; colour the picture by rank,
    logit, attention or importance; see the memories and heads that add most to the logit; compare two classes, or two
    pictures. The page is one file that needs no server and no network.

    Example: hooked-vit explore photo.jpg --model vit_base_patch16_224.augreg_in21k_ft_in1k --out photo.html
    """
    if len(image) > 2:
        fail(f"a page shows one picture, or compares two, got {len(image)}: run the command several times", USAGE)
    if patching and len(image) == 1:
        fail("--patching copies from one picture's run into another's: name two pictures", USAGE)
    require_pictures(*image)
    target = out or Path(f"{'-'.join(path.stem for path in image)}-explore.html")
    if target.is_dir():
        fail(f"--out must be a file, '{target}' is a folder", USAGE)

    from analyses.commands.class_names import class_indices
    from analyses.commands.load_model import load_model
    from analyses.pages.explorer.build import explore as make_page
    from analyses.progress import working

    report = Reporter("explore", as_json)
    pictures = [read_picture(path) for path in image]
    vit = load_model(model, report.progress)
    classes = class_indices(vit, class_names)
    name = f"{model.model}, random weights" if model.random_weights else model.model
    with user_errors(ValueError, OSError):
        # patching shows how far it is
        with nullcontext() if patching else working("making the page", report.progress):
            page = make_page(
                vit,
                pictures,
                classes,
                patching=patching,
                title=[path.name for path in image],
                model_name=name,
                progress=report.progress,
            )
        page.save(target)
    report.add(**model.record, picture=str(image[0]), **({"second": str(image[1])} if len(image) > 1 else {}))
    report.wrote(target)
    report.close()
