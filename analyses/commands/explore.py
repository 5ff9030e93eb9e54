"""`hooked-vit explore`: a picture through a model, as one HTML page to look around in."""

from pathlib import Path
from typing import Annotated

import typer

from analyses.commands.errors import USAGE, fail, user_errors
from analyses.commands.options import Device, ModelName, RandomWeights, WeightsFile
from analyses.commands.output import AsJson, Reporter

__all__ = ["explore"]


def explore(
    image: Annotated[list[Path], typer.Argument(help="A picture, in any format that PIL reads.", show_default=False)],
    model: ModelName = "emoji-vit",
    class_names: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="A class that the page must have, by name or index; repeat it for several.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the page goes; NAME-explore.html beside you, if not told."),
    ] = None,
    weights: WeightsFile = None,
    random_weights: RandomWeights = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Look around in what a model makes of a picture, in a page for your browser.

    Point at a patch to see its classes block by block; colour the picture by rank, logit, attention or importance; see
    which memories fire, and what adds up to the logit. The page is one file that needs no server and no network.

    Example: hooked-vit explore photo.jpg --model vit_base_patch16_224.augreg_in21k_ft_in1k --out photo.html
    """
    if len(image) > 1:
        fail(f"a page is of one picture, got {len(image)}: run the command once for each", USAGE)
    [path] = image
    if not path.is_file():
        fail(f"no picture at '{path}'")
    target = out or Path(f"{path.stem}-explore.html")
    if target.is_dir():
        fail(f"--out is the page's file, '{target}' is a folder", USAGE)

    from PIL.Image import DecompressionBombError

    from analyses.commands.load_model import load_model
    from analyses.pages.explorer.build import explore as make_page
    from analyses.progress import working
    from hooked_vit.preprocessing import as_picture

    with user_errors(ValueError, OSError, DecompressionBombError):
        picture = as_picture(path)
    report = Reporter("explore", as_json)
    vit = load_model(model, weights, random_weights, device, report.progress)
    with user_errors(ValueError, status=USAGE):
        classes = [vit.class_index(int(name) if name.isdecimal() else name) for name in class_names or ()]
    with user_errors(ValueError, OSError):
        name = f"{model}, random weights" if random_weights else model
        with working("looking at the picture", report.progress):
            page = make_page(vit, picture, classes, title=path.name, model_name=name)
        page.save(target)
    report.add(model=model, random_weights=random_weights, picture=str(path))
    report.wrote(target)
    report.close()
