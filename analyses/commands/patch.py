"""`hooked-vit patch`: which parts of one picture's run, put into another's, carry the difference between the two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analyses.commands.errors import FAILED, USAGE, complain, user_errors
from analyses.commands.options import Device, ModelName, RandomWeights, WeightsFile
from analyses.commands.output import AsJson, Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from analyses.patching.result import PatchResult
    from hooked_vit import HookedViT

__all__ = ["patch"]

_HEADS = ("z", "q", "k", "v", "pattern")

Stream = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern", "post"]


def patch(
    clean: Annotated[Path, typer.Argument(help="A picture, in any format that PIL reads.", show_default=False)],
    corrupt: Annotated[Path, typer.Argument(help="Its counterpart, which differs in one thing.", show_default=False)],
    model: ModelName = "emoji-vit",
    stream: Annotated[
        Stream,
        typer.Option(help="What is patched: the stream, a patch a token; z to pattern, a head; post, a neuron."),
    ] = "resid_pre",
    direction: Annotated[
        Literal["denoising", "noising"],
        typer.Option(help="Clean parts into the corrupt run (what suffices), or the reverse (what it takes)."),
    ] = "denoising",
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="In the place of what the model predicts for the clean picture."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="In the place of what it predicts for the corrupt picture.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where figure and table go; made if need be.")] = Path(
        "patch"
    ),
    memory_limit: Annotated[
        float | None, typer.Option(metavar="MB", min=0, help="What the patched runs may take at a time.")
    ] = None,
    weights: WeightsFile = None,
    random_weights: RandomWeights = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Where in the model does the difference between two pictures live?

    Puts parts of one run into the other, one at a time, and measures the logit of the clean picture's class above
    that of the corrupt one's: 0 is the run that is patched, 1 the other. Prints the places that matter most, and
    writes all of them as a table (CSV) and, but for neurons, a figure.

    Example: hooked-vit patch dog.png cat.png --stream z --direction noising --out patched
    """
    missing = [path for path in (clean, corrupt) if not path.is_file()]
    for path in missing:
        complain(f"no picture at '{path}'")
    if missing:
        raise typer.Exit(FAILED)

    from PIL.Image import DecompressionBombError
    from rich.table import Table

    from analyses.commands.load_model import load_model
    from analyses.patching.activation import activation_patching
    from analyses.patching.metrics import logit_difference
    from hooked_vit.preprocessing import as_picture

    report = Reporter("patch", as_json)
    vit = load_model(model, weights, random_weights, device, report.progress)
    with user_errors(ValueError, OSError, DecompressionBombError):
        images = [vit.preprocess(as_picture(path)) for path in (clean, corrupt)]
    with user_errors(ValueError, status=USAGE):
        classes = _classes(vit, images, class_name, against)
    names = [vit.class_names[label].split(",")[0] for label in classes]
    with user_errors(ValueError):
        metric = logit_difference(classes[0], against=classes[1])
        limit = None if memory_limit is None else memory_limit * 1e6
        result = activation_patching(vit, images[0], images[1], metric, stream, direction=direction, memory_limit=limit,
                                     progress=report.progress)  # fmt: skip
    table = result.table()
    title = f"{names[0]} above {names[1]}: {float(result.source):.2f} logits where patches come from, " \
            f"{float(result.base):.2f} where they are put in"  # fmt: skip
    printed, has_patches = Table(), "token_type" in table
    for column in ("block", *result.axes[1:], *(["where"] if has_patches else []), "logits", "share"):
        printed.add_column(column, justify="right")
    largest = table.assign(size=table["effect"].abs()).sort_values(by="size", ascending=False, kind="stable")[:10]
    for _, row in largest.iterrows():
        kind = str(row.get("token_type", ""))
        where = f"row {row['row']}, column {row['column']}" if kind == "patch" else kind
        places = (f"{row[axis]}" for axis in result.axes)
        printed.add_row(*places, *([where] if has_patches else []), f"{row['effect']:+.2f}", f"{row['recovered']:.0%}")
    stem = f"{clean.stem}-{corrupt.stem}-{stream}-{direction}"
    with user_errors(OSError):
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / f"{stem}.csv", index=False)
        written = [out / f"{stem}.csv", *_draw(vit, result, images, names, out / f"{stem}.png")]
    report.add(model=model, random_weights=random_weights, clean=str(clean), corrupt=str(corrupt),
               label=names[0], against=names[1], source=float(result.source), base=float(result.base))  # fmt: skip
    report.say(title)
    report.show(printed)
    report.add_table("patches", table)
    report.wrote(*written)
    report.close()


def _classes(
    model: "HookedViT", images: "list[Tensor]", class_name: str | None, against: str | None
) -> tuple[int, int]:
    """Of the clean and of the corrupt picture."""
    import torch

    _ = model.W_U  # without classes, this says what to do
    chosen: list[int] = []
    for image, name in zip(images, (class_name, against), strict=True):
        if name is not None:
            chosen.append(model.class_index(int(name) if name.isdecimal() else name))
        else:
            with torch.no_grad():
                chosen.append(int(model(image)[0].argmax()))
    if chosen[0] == chosen[1]:
        raise ValueError(
            f"both pictures stand for '{model.class_names[chosen[0]]}', by the model's prediction or by your choice: "
            "name two classes with --class and --against"
        )
    return chosen[0], chosen[1]


def _draw(
    model: "HookedViT", result: "PatchResult", images: "list[Tensor]", names: list[str], target: Path
) -> list[Path]:
    from analyses.plots.patch_maps import picture_of
    from analyses.plots.patching import head_patching_figure, token_patching_figure

    title = f"{names[0]} against {names[1]}: '{result.stream}' of each block, {result.direction}"
    if result.stream in _HEADS:
        head_patching_figure({result.stream: result}, title=title).savefig(target, dpi=120)
    elif "token" in result.axes and max(result.labels["token"]) < result.layout.n_tokens:
        pictures = [picture_of(image[0], model.data_config or {}) for image in images]
        told = (f"clean: {names[0]}", f"corrupt: {names[1]}")
        token_patching_figure(result, pictures[0], pictures[1], model.cfg.patch_size, names=told, title=title).savefig(
            target, dpi=120
        )
    else:
        return []
    return [target]
