"""`hooked-vit lens`: for each picture, a table and a figure of how the classes build up, block by block."""

from pathlib import Path
from typing import Annotated

import typer

from analyses.commands.errors import FAILED, USAGE, complain, user_errors
from analyses.commands.options import Device, ModelName, RandomWeights, WeightsFile
from analyses.commands.output import AsJson, Reporter

__all__ = ["lens"]


def lens(
    images: Annotated[list[Path], typer.Argument(help="Pictures, in any format that PIL reads.", show_default=False)],
    model: ModelName = "emoji-vit",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the figures go; made if need be.")] = Path("lens"),
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="The class whose rank is told, by name or index, in the place of what the model predicts.",
        ),
    ] = None,
    weights: WeightsFile = None,
    random_weights: RandomWeights = False,
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="0,4,8",
            help="The blocks in the figure, in the place of five from first to last; negative ones count from the end.",
        ),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Which classes do the patches of your pictures stand for, after each block?

    Every token of every block is projected onto the classes. Prints a table for each picture, and writes a figure
    NAME-lens.png: each patch's top class, and how many classes are in front of the one that the model predicts.

    Pictures that cannot be read are told on standard error and left out; the exit status is then 1.

    Example: hooked-vit lens photo.jpg --model vit_base_patch16_224.augreg_in21k_ft_in1k --out maps
    """
    present = [path for path in images if path.is_file()]
    for path in images:
        if path not in present:
            complain(f"no picture at '{path}'")
    if not present:
        raise typer.Exit(FAILED)

    from PIL.Image import DecompressionBombError

    from analyses.commands.lens_result import lens_report
    from analyses.commands.load_model import load_model
    from analyses.progress import progress_bar
    from hooked_vit.preprocessing import as_picture

    report = Reporter("lens", as_json)
    vit = load_model(model, weights, random_weights, device, report.progress)
    with user_errors(ValueError, status=USAGE):
        shown = None if blocks is None else _block_numbers(blocks, vit.cfg.n_layers)
        chosen = None if class_name is None else vit.class_index(_name_or_index(class_name))
    with user_errors(OSError):
        out.mkdir(parents=True, exist_ok=True)
    written: set[str] = set()
    report.add(model=model, random_weights=random_weights)
    with progress_bar(len(present), show=report.progress, what="pictures") as advance:
        for path in present:
            try:
                picture = as_picture(path)
            except (ValueError, OSError, DecompressionBombError) as error:
                complain(error)
                continue
            with user_errors(ValueError, OSError):
                found = lens_report(vit, picture, path.name, chosen, shown)
                target = _free_name(out, path.stem, written)
                found.figure.savefig(target)
            advance(1)
            report.show(found.table)
            report.add_table("lens", found.blocks.assign(picture=str(path)))
            report.wrote(target)
            report.say("")
    report.close()
    raise typer.Exit(0 if len(written) == len(images) else FAILED)


def _name_or_index(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _block_numbers(text: str, n_layers: int) -> tuple[int, ...]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--blocks takes numbers with commas between them, such as 0,4,8, got '{text}'") from None
    if any(not -n_layers <= number < n_layers for number in numbers):
        raise ValueError(f"--blocks {text}: the model has blocks 0 to {n_layers - 1}")
    return tuple(dict.fromkeys(number % n_layers for number in numbers))


def _free_name(folder: Path, stem: str, taken: set[str]) -> Path:
    """A file name that no other picture of this run has."""
    name, number = f"{stem}-lens", 1
    while name.casefold() in taken:  # some file systems do not tell upper from lower case
        number += 1
        name = f"{stem}-lens-{number}"
    taken.add(name.casefold())
    return folder / f"{name}.png"
