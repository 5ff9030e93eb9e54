"""`hooked-vit sweep`: a dataset through a model once, for any number of analyses."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyses.commands.errors import USAGE, complain, fail, user_errors
from analyses.commands.options import Device, ModelName, RandomWeights, WeightsFile
from analyses.commands.output import AsJson, Reporter

if TYPE_CHECKING:
    from analyses.analysis.base import Analysis

__all__ = ["make_analyses", "sweep"]

_NAMES = (
    "identifiability, updates, perturbation, key-value, compositionality, class-value, causal-memories, faithfulness, "
    "localisation, ablation"
)  # of the catalogue, which is not imported for a help text


def sweep(
    data: Annotated[
        str,
        typer.Option(
            metavar="KIND:PATH",
            help="emoji-scenes:1000, imagenet-s:DIR?n=5, folder:DIR, cifar100:DIR; options as in a web address.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where tables and record go.", show_default=False)],
    model: ModelName = "emoji-vit",
    analyses: Annotated[str, typer.Option(metavar="NAME,…", help=f"Any of {_NAMES}.")] = "identifiability,updates",
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="For faithfulness and localisation; repeat it for several. By default all that need no pixels.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N images.")] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on where an interrupted sweep in DIR was; --no-resume deletes it and starts over.")
    ] = True,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images a forward pass.")] = 32,
    device: Device = None,
    weights: WeightsFile = None,
    random_weights: RandomWeights = False,
    workers: Annotated[int, typer.Option(metavar="N", min=0, help="Processes that read images ahead.")] = 0,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop at an image that cannot be read, instead of listing it.")
    ] = False,
    null_control: Annotated[
        bool,
        typer.Option("--null-control", help="Do the same with the model freshly initialised, into DIR/null."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a model over a dataset once, and ask any number of analyses.

    Writes a Parquet table for each analysis, the model's accuracy, a list of the images that could not be read, and
    record.json, which says what they follow from. The same command goes on after an interruption, whatever it was;
    under `accelerate launch` or `torchrun --no-python` the processes divide the images, and the tables are the same.

    Example: hooked-vit sweep --data emoji-scenes:1000 --analyses identifiability,updates,perturbation --out found
    """
    names = [name.strip() for name in analyses.split(",") if name.strip()]
    with user_errors(ValueError, status=USAGE):
        chosen = make_analyses(names, methods or ())

    from torch import distributed

    from analyses.commands.load_model import load_model
    from analyses.data.open import open_dataset
    from analyses.sweep.run import sweep as run
    from hooked_vit.initialisation import freshly_initialised

    report = Reporter("sweep", as_json)
    vit = load_model(model, weights, random_weights, device or _own_gpu(), report.progress)
    with user_errors(ValueError, status=USAGE), user_errors(FileNotFoundError):
        dataset = open_dataset(data, vit.class_names)
    if null_control and random_weights:
        fail("--null-control is the model of --random-weights: it needs another one to control", USAGE)
    how: dict[str, Any] = {"limit": limit, "resume": resume, "num_workers": workers, "progress": report.progress,
                           "on_error": "raise" if stop else "skip"}  # fmt: skip
    asked = {"model": model, "weights": weights and str(weights), "random_weights": random_weights, "data": data}
    with user_errors(ValueError, TypeError, OSError, ImportError):
        tables = run(vit, dataset, chosen, batch_size, out, **how)
        null_tables = {}
        if null_control:
            null_tables = run(freshly_initialised(vit, seed=0), dataset, chosen, batch_size, out / "null", **how)
    if distributed.is_initialized() and distributed.get_rank() > 0:
        return  # one of several processes tells what all have found
    with user_errors(OSError):
        _note(out, asked)
        if null_control:
            _note(out / "null", {**asked, "random_weights": True})
    accuracy, skipped = tables["accuracy"].iloc[0], tables["skipped"]
    if len(skipped):
        first = skipped.iloc[0]
        complain(f"{len(skipped)} images left out, see {out / 'skipped.parquet'}; image {first['index']}: "
                 f"{first['reason']}")  # fmt: skip
    report.add(model=model, random_weights=random_weights, data=data)
    report.say(f"{accuracy['n_images']:.0f} images: top-1 {accuracy['top1']:.2f} %, top-5 {accuracy['top5']:.2f} %")
    for name, table in tables.items():
        report.add_table(name, table)
        report.wrote(out / f"{name}.parquet")
    report.wrote(*(out / "null" / f"{name}.parquet" for name in null_tables))
    report.close()


def _note(folder: Path, asked: dict[str, Any]) -> None:
    """Put into the record what a sweep itself cannot know: the names by which its model and dataset were asked for."""
    from analyses.sweep.store import Store

    store = Store(folder)
    record = store.read_record() or {}
    if "asked" not in record:
        store.write_record({**record, "asked": {**asked, "date": datetime.now(UTC).strftime("%Y-%m-%d")}})


def make_analyses(names: Sequence[str], methods: Sequence[str] = ()) -> "list[Analysis]":
    """The analyses of these names; those that compare explanation methods compare `methods`, if there are any.

    Raises:
        ValueError: If there is no such analysis or method, none is named, or no analysis compares methods.
    """
    from analyses.catalogue import CATALOGUE

    entries = {entry.command: entry for entry in CATALOGUE.values()}
    unknown = [name for name in names if name not in entries]
    if unknown or not names:
        raise ValueError(f"no analysis called {', '.join(unknown) or 'nothing'}: there are {', '.join(entries)}")
    comparing = [name for name in entries if entries[name].compares_methods]
    if methods and not set(names) & set(comparing):
        raise ValueError(f"--method is for {' and '.join(comparing)}: name one of them in --analyses")
    options: dict[str, Any] = {"methods": tuple(dict.fromkeys(methods))} if methods else {}
    return [
        entries[name].analysis(**(options if entries[name].compares_methods else {})) for name in dict.fromkeys(names)
    ]


def _own_gpu() -> str | None:
    """Of several processes on one machine, each takes a GPU of its own, if there are any."""
    if "LOCAL_RANK" not in os.environ:
        return None

    import torch

    if not torch.cuda.is_available():
        return None
    own = int(os.environ["LOCAL_RANK"])
    if own >= torch.cuda.device_count():
        fail(f"{own + 1} processes for {torch.cuda.device_count()} GPUs here: start one a GPU, or pass --device cpu")
    return f"cuda:{own}"
