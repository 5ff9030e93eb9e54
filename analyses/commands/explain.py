"""`hooked-vit explain`: which parts of a picture matter for a class, by several methods side by side."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from analyses.commands.errors import USAGE, fail, user_errors
from analyses.commands.options import Device, ModelName, RandomWeights, WeightsFile
from analyses.commands.output import AsJson, Reporter

__all__ = ["explain"]


def explain(
    image: Annotated[Path, typer.Argument(help="A picture, in any format that PIL reads.", show_default=False)],
    model: ModelName = "emoji-vit",
    class_names: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="A class, by name or index; repeat it for several. By default the predicted one.",
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="A method; repeat it for several. By default all but random."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where figures and maps go; made if need be.")] = Path(
        "explain"
    ),
    weights: WeightsFile = None,
    random_weights: RandomWeights = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Which parts of a picture matter for a class? Feature importance and its rivals, side by side.

    Prints a table that puts each map to the test: the class's probability with only the quarter of the patches that
    the map calls most important, and without them. Writes NAME-explain.png, each method's map for each class;
    NAME-heads-CLASS.png, feature importance by block and head; and NAME-maps.csv, all maps as numbers.

    Example: hooked-vit explain photo.jpg --class "tabby" --class "tiger cat" --method importance --method rollout
    """
    if not image.is_file():
        fail(f"no picture at '{image}'")

    from PIL.Image import DecompressionBombError

    from analyses.commands.explain_result import explain_report
    from analyses.commands.load_model import load_model
    from analyses.feature_importance.methods import METHODS, explainer, needs_pixels
    from hooked_vit.preprocessing import as_picture

    has_captum = find_spec("captum") is not None
    chosen_methods = list(dict.fromkeys(methods or ())) or [
        name for name in METHODS if name != "random" and (has_captum or not needs_pixels(name))
    ]
    with user_errors(ValueError, status=USAGE):
        for name in chosen_methods:
            explainer(name)
    report = Reporter("explain", as_json)
    vit = load_model(model, weights, random_weights, device, report.progress)
    with user_errors(ValueError, status=USAGE):
        classes = [vit.class_index(int(name) if name.isdecimal() else name) for name in class_names or ()]
    with user_errors(ValueError, OSError, ImportError, DecompressionBombError):
        found = explain_report(vit, as_picture(image), image.name, classes, chosen_methods, report.progress)
        out.mkdir(parents=True, exist_ok=True)
        targets = {out / f"{image.stem}-{name}.png": figure for name, figure in found.figures.items()}
        for path, figure in targets.items():
            figure.savefig(path)
        maps = out / f"{image.stem}-maps.csv"
        found.maps.to_csv(maps, index=False)
    report.add(model=model, random_weights=random_weights, picture=str(image))
    report.show(found.table)
    report.add_table("tests", found.tests)
    report.add_table("maps", found.maps)
    report.wrote(*targets, maps)
    report.close()
