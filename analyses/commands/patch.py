"""`hooked-vit patch`: the parts of a picture's run that carry its difference from another picture."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from analyses.commands.errors import USAGE, user_errors
from analyses.commands.options import ModelOptions, grouped
from analyses.commands.output import AsJson, Reporter
from analyses.commands.pictures import read_picture, require_pictures

__all__ = ["patch"]

Stream = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern", "post"]


@grouped
def patch(
    *,
    clean: Annotated[Path, typer.Argument(help="A picture, in any format that PIL reads.", show_default=False)],
    corrupt: Annotated[Path, typer.Argument(help="Its counterpart, which differs in one thing.", show_default=False)],
    stream: Annotated[
        Stream,
        typer.Option(
            help="What is patched: streams, one token at a time; z to pattern, one head; post, one neuron of an MLP."
        ),
    ] = "resid_pre",
    direction: Annotated[
        Literal["denoising", "noising"],
        typer.Option(help="Clean parts into the corrupt run (what is sufficient), or the reverse (what is necessary)."),
    ] = "denoising",
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="NAME", help="The clean picture's class, by name or index. By default the predicted one."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The corrupt picture's class, by name or index. By default the predicted one."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for figure and table; created if missing.")] = Path(
        "patch"
    ),
    memory_limit: Annotated[
        float | None, typer.Option(metavar="MB", min=0, help="Memory that patched runs may take at a time.")
    ] = None,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Find where in the model the difference between two pictures is computed.

    Copies parts of one run into the other, one at a time, and measures the logit of the clean picture's class minus
    that of the corrupt one's. A share of 0 is the patched run, 1 the run that the parts come from. Prints the parts
    with the largest effect; writes all of them as a table (CSV) and, except for neurons, a figure.

    Example: hooked-vit patch dog.png cat.png --stream z --direction noising --out patched
    """
    require_pictures(clean, corrupt)

    from analyses.commands.class_names import class_index
    from analyses.commands.load_model import load_model
    from analyses.commands.patch_result import patch_report, two_classes
    from analyses.patching.activation import activation_patching
    from analyses.patching.metrics import logit_difference

    report = Reporter("patch", as_json)
    pictures = [read_picture(path) for path in (clean, corrupt)]
    vit = load_model(model, report.progress)
    named = [None if name is None else class_index(vit, name) for name in (class_name, against)]
    with user_errors(ValueError):
        images = [vit.preprocess(picture) for picture in pictures]
    with user_errors(ValueError, status=USAGE):
        classes = two_classes(vit, images, named)
    with user_errors(ValueError):
        metric = logit_difference(classes[0], against=classes[1])
        limit = None if memory_limit is None else memory_limit * 1e6
        result = activation_patching(
            vit, images[0], images[1], metric, stream, direction=direction, memory_limit=limit, progress=report.progress
        )
    found = patch_report(vit, result, images, classes)
    report.add(**model.record, clean=str(clean), corrupt=str(corrupt), label=found.names[0], against=found.names[1],
               source=float(result.source), base=float(result.base))  # fmt: skip
    report.say(found.heading)
    report.show(found.largest)
    report.add_table("patches", found.patches)
    stem = f"{clean.stem}-{corrupt.stem}-{stream}-{direction}"
    report.save_csv(found.patches, out / f"{stem}.csv")
    if found.figure is not None:
        report.save_figure(found.figure, out / f"{stem}.png", dpi=120)
    report.close()
