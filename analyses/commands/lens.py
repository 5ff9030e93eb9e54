"""`hooked-vit lens`: for each picture, a table and a figure of its classes after each block."""

from pathlib import Path
from typing import Annotated

import typer

from analyses.commands.errors import FAILED, USAGE, user_errors
from analyses.commands.options import LensFile, ModelOptions, grouped, parse_numbers
from analyses.commands.output import AsJson, Reporter, make_folder
from analyses.commands.pictures import existing_pictures, readable_picture

__all__ = ["lens"]


@grouped
def lens(
    *,
    images: Annotated[list[Path], typer.Argument(help="Pictures, in any format that PIL reads.", show_default=False)],
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="The class whose rank is shown, by name or index. By default the predicted one.",
        ),
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="0,4,8",
            help="The blocks in the figure; negative ones count from the end. By default five from first to last.",
        ),
    ] = None,
    lens_file: LensFile = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the figures; created if missing.")] = Path(
        "lens"
    ),
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Show the top class of each patch of a picture, block by block.

    Every token of every block is projected onto the classes. Prints a table for each picture, and writes a figure
    NAME-lens.png: each patch's top class, and the rank of the class that the model predicts.

    Pictures that cannot be read are reported on standard error and left out; the exit status is then 1.

    Example: hooked-vit lens photo.jpg --model vit_base_patch16_224.augreg_in21k_ft_in1k --out maps
    """
    paths = existing_pictures(images)
    if not paths:
        raise typer.Exit(FAILED)

    from analyses.commands.class_names import class_index
    from analyses.commands.lens_result import lens_report
    from analyses.commands.load_lens import load_lens
    from analyses.commands.load_model import load_model
    from analyses.plots.class_colours import ClassColours
    from analyses.progress import progress_bar

    report = Reporter("lens", as_json)
    vit = load_model(model, report.progress)
    shown = _block_numbers(blocks, vit.cfg.n_layers)
    tuned = load_lens(lens_file, vit, patches=True)
    chosen = None if class_name is None else class_index(vit, class_name)
    make_folder(out)
    written: set[str] = set()
    colours = ClassColours()
    report.add(**model.record, **({} if lens_file is None else {"lens": str(lens_file)}))
    with progress_bar(len(paths), show=report.progress, what="pictures") as advance:
        for path in paths:
            picture = readable_picture(path)
            if picture is not None:
                with user_errors(ValueError):
                    found = lens_report(vit, picture, path.name, chosen, shown, colours, tuned)
                report.show(found.table)
                report.add_table("lens", found.blocks.assign(picture=str(path)))
                report.save_figure(found.figure, _free_name(out, path.stem, written))
                report.say("")
            advance(1)
    report.close()
    raise typer.Exit(0 if len(written) == len(images) else FAILED)


def _block_numbers(text: str | None, n_layers: int) -> tuple[int, ...] | None:
    if text is None:
        return None
    with user_errors(ValueError, status=USAGE):
        numbers = parse_numbers("--blocks", text)
        if any(not -n_layers <= number < n_layers for number in numbers):
            raise ValueError(f"--blocks {text}: the model has blocks 0 to {n_layers - 1}")
    return tuple(dict.fromkeys(number % n_layers for number in numbers))


def _free_name(folder: Path, stem: str, taken: set[str]) -> Path:
    """A file name that no other picture of this run has."""
    name, number = f"{stem}-lens", 1
    while name.casefold() in taken:  # some file systems ignore case
        number += 1
        name = f"{stem}-lens-{number}"
    taken.add(name.casefold())
    return folder / f"{name}.png"
