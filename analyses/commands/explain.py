"""`hooked-vit explain`: the parts of a picture that matter for a class, by several methods side by side."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any
from warnings import catch_warnings, filterwarnings

import typer

from analyses.commands.errors import USAGE, user_errors
from analyses.commands.options import ModelOptions, grouped
from analyses.commands.output import AsJson, Reporter
from analyses.commands.pictures import read_picture, require_pictures

__all__ = ["explain"]


@grouped
def explain(
    *,
    image: Annotated[Path, typer.Argument(help="A picture, in any format that PIL reads.", show_default=False)],
    class_names: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="A class, by name or index; repeatable. By default the predicted one.",
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="A method; repeatable. By default all except random."),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What importance differentiates: cross_entropy, as in the paper; logit or margin where a class is "
            "so certain that its cross-entropy has no gradient.",
        ),
    ] = "cross_entropy",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for figures and maps; created if missing.")] = Path(
        "explain"
    ),
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Show which parts of a picture matter for a class: feature importance and other methods, side by side.

    Prints a table that tests each map: the class's probability with only the quarter of the patches that the map ranks
    highest, and without them. Writes NAME-explain.png, each method's map for each class; NAME-heads-CLASS.png, feature
    importance by block and head; and NAME-maps.csv, all maps as numbers.

    Example: hooked-vit explain photo.jpg --class "tabby" --class "tiger cat" --method importance --method rollout
    """
    require_pictures(image)

    from analyses.commands.class_names import class_indices
    from analyses.commands.explain_result import explain_report
    from analyses.commands.load_model import load_model

    chosen_methods = list(dict.fromkeys(methods or ())) or _default_methods()
    _check_methods(chosen_methods)
    report = Reporter("explain", as_json)
    picture = read_picture(image)
    vit = load_model(model, report.progress)
    classes = class_indices(vit, class_names)
    with user_errors(ValueError, ImportError, MemoryError), catch_warnings():
        filterwarnings("ignore", "importance is exactly 0")  # the table says so
        asked: Any = target  # checked where it is used
        found = explain_report(vit, picture, image.name, classes, chosen_methods, report.progress, asked)
    report.add(**model.record, picture=str(image))
    report.show(found.table)
    report.add_table("tests", found.tests)
    report.add_table("maps", found.maps)
    for name, figure in found.figures.items():
        report.save_figure(figure, out / f"{image.stem}-{name}.png")
    report.save_csv(found.maps, out / f"{image.stem}-maps.csv")
    report.close()


def _default_methods() -> list[str]:
    """All methods except random; without captum, those that do not need it."""
    from analyses.feature_importance.methods import METHODS, needs_pixels

    has_captum = find_spec("captum") is not None
    return [name for name in METHODS if name != "random" and (has_captum or not needs_pixels(name))]


def _check_methods(names: list[str]) -> None:
    from analyses.feature_importance.methods import explainer

    with user_errors(ValueError, status=USAGE):
        for name in names:
            explainer(name)
