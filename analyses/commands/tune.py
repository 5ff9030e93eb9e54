"""`hooked-vit tune`: fit a tuned lens, which `--lens` of other commands takes."""

from pathlib import Path
from typing import Annotated
from warnings import catch_warnings, simplefilter

import typer

from analyses.commands.errors import USAGE, complain, fail, user_errors
from analyses.commands.options import ModelOptions, grouped
from analyses.commands.output import AsJson, Reporter

__all__ = ["tune"]


@grouped
def tune(
    *,
    data: Annotated[
        str,
        typer.Option(
            metavar="KIND:PATH",
            help="The pictures, as for hooked-vit sweep, but other ones than those to sweep. Labels play no part.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The lens: a .safetensors file.", show_default=False)],
    tokens: Annotated[
        str, typer.Option(metavar="all|read", help="Fit to all tokens, or only to those that the head reads.")
    ] = "all",
    alpha: Annotated[
        float, typer.Option(metavar="X", help="The ridge penalty, as a share of the stream's mean variance.")
    ] = 1e-3,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only N pictures, drawn at random by the seed.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Which pictures --limit draws.")] = 0,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Pictures per forward pass.")] = 32,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Fit a tuned lens: an affine map from the stream at each block to the last one.

    Writes the maps, and beside them a JSON file that says how they were made. With --lens FILE, other commands project
    through the map instead of directly, which tells apart what is there in another basis and what is not there.

    Example: hooked-vit tune --data 'emoji-scenes:2000?seed=1' --out lens.safetensors
    """
    if out.suffix != ".safetensors":
        fail(f"--out is a .safetensors file, got '{out}'", USAGE)
    if tokens not in ("all", "read"):
        fail(f"--tokens is all or read, not '{tokens}'", USAGE)

    import pandas as pd

    from analyses.commands.load_data import load_data
    from analyses.commands.load_model import load_model
    from analyses.tuned_lens.fitting import fit_tuned_lens

    report = Reporter("tune", as_json)
    vit = load_model(model, report.progress, classes=False)
    dataset = load_data(data, vit.class_names)
    with user_errors(ValueError, TypeError), catch_warnings(record=True) as caught:
        simplefilter("always", UserWarning)
        lens = fit_tuned_lens(
            vit,
            dataset,
            tokens=tokens,  # pyright: ignore[reportArgumentType]  (it is checked there)
            alpha=alpha,
            n_images=None if limit is None else min(limit, len(dataset)),
            seed=seed,
            batch_size=batch_size,
            progress=report.progress,
        )
    for warning in caught:
        complain(str(warning.message), "warning")
    with user_errors(OSError):
        lens.save(out)
    explained = lens.record["variance_explained"]
    report.add(**model.record, data=data, tokens=tokens, alpha=alpha, seed=seed, fingerprint=lens.fingerprint)
    report.add_table("lens", pd.DataFrame({"block": range(len(explained)), "explained": [row[0] for row in explained]}))
    shown = ", ".join(f"{round(100 * row[0])}" for row in explained)
    report.say(
        f"{lens.record['n_images']} pictures; variance of the last stream explained before each block, in pictures "
        f"held out: {shown} %"
    )
    report.wrote(out, out.with_suffix(".json"))
    report.close()
