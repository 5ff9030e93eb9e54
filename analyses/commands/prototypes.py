"""`hooked-vit prototypes`: class embeddings from a folder of pictures, for a model without classes."""

from pathlib import Path
from typing import Annotated

import typer

from analyses.commands.errors import USAGE, complain, fail, user_errors
from analyses.commands.options import ModelOptions, grouped
from analyses.commands.output import AsJson, Reporter

__all__ = ["prototypes"]


@grouped
def prototypes(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder of pictures for each class.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The class embeddings: a .safetensors file.", show_default=False)
    ],
    method: Annotated[
        str, typer.Option(metavar="mean|ridge", help="The mean features of each class, or ridge regression on them.")
    ] = "mean",
    shots: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="Only the first K pictures of each class.")
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            metavar="cls|avg|cls_and_mean",
            help="What reads them: CLS, the mean of the patches, or both side by side. By default as the model's head.",
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(metavar="X", help="The penalty of ridge.")] = 1.0,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Pictures per forward pass.")] = 8,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Make class embeddings from a few pictures per class, for a model without classes.

    Each folder in DIR is a class. Its embedding is the mean of what the head reads in its pictures (or ridge
    regression on it). Every other command takes the file with --class-embeddings. With two pictures per class or more,
    the command prints how many are classified right by embeddings made without them.

    Example: hooked-vit prototypes pictures/ --model vit_small_patch14_dinov2.lvd142m --out classes.safetensors
    """
    if method not in ("mean", "ridge"):
        fail(f"--method is mean or ridge, not '{method}'", USAGE)
    if pool not in (None, "cls", "avg", "cls_and_mean"):
        fail(f"--pool is cls, avg or cls_and_mean, not '{pool}'", USAGE)
    if out.suffix != ".safetensors":
        fail(f"--out is a .safetensors file, got '{out}'", USAGE)

    import pandas as pd

    from analyses.commands.load_model import load_model
    from analyses.data.image_folder import ImageFolder
    from analyses.prototypes.fitting import class_prototypes

    report = Reporter("prototypes", as_json)
    with user_errors(ValueError, FileNotFoundError):
        dataset = ImageFolder(folder, classes="sorted")
    vit = load_model(model, report.progress, classes=False)
    with user_errors(ValueError):
        made = class_prototypes(
            vit,
            dataset,
            method=method,
            shots=shots,
            pool=pool,
            alpha=alpha,
            batch_size=batch_size,
            on_error="skip",
            progress=report.progress,
        )
    for index, reason in made.how.get("skipped", ()):
        complain(f"{dataset.samples[index][0]}: {reason}", "skipped")
    with user_errors(OSError):
        made.save(out)
    names = made.class_names or ()
    pictures, accuracy = made.how["pictures"], made.how["held_out_accuracy"]
    report.add(**model.record, method=method, pool=pool, held_out_accuracy=accuracy)
    report.add_table("classes", pd.DataFrame({"class_name": names, "pictures": pictures}))
    held_out = "" if accuracy is None else f": {accuracy:.1f} % right when held out, {100 / len(names):.1f} % by chance"
    report.say(f"{sum(pictures)} pictures of {len(names)} classes{held_out}")
    report.wrote(out)
    report.close()
