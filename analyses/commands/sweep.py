"""`hooked-vit sweep`: one pass of a model over a dataset, for any number of analyses."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyses.commands.errors import USAGE, complain, fail, user_errors
from analyses.commands.options import LensFile, ModelOptions, RunOptions, grouped
from analyses.commands.output import AsJson, Reporter
from analyses.commands.perturbations import check_perturbations, set_perturbations
from analyses.commands.sweep_analyses import ANALYSIS_NAMES, make_analyses, set_lens

if TYPE_CHECKING:
    import pandas as pd

    from analyses.analysis.base import Analysis
    from analyses.data.dataset import LabelledImages
    from hooked_vit import HookedViT

__all__ = ["sweep"]


@grouped
def sweep(
    *,
    data: Annotated[
        str,
        typer.Option(
            metavar="KIND:PATH",
            help="emoji-scenes:1000, imagenet-s:DIR?n=5, folder:DIR, cifar100:DIR; options follow as in a web address. "
            "The folders of folder:DIR are classes by name, wnid or index; folder:DIR?classes=sorted numbers them in "
            "order, folder:DIR?classes=FILE reads the folder of each class, one per line.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for tables and record.", show_default=False)],
    analyses: Annotated[
        str, typer.Option(metavar="NAME,…", help=f"Any of {', '.join(ANALYSIS_NAMES)}.")
    ] = "identifiability,updates",
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="For faithfulness and localisation; repeatable. By default all that need no pixels.",
        ),
    ] = None,
    perturbations: Annotated[
        list[str] | None,
        typer.Option(
            "--perturb",
            metavar="NAME[:NUMBER]",
            help="For robustness and failure-prediction; repeatable: noise, blur, occlusion, patch_shuffle, fgsm, pgd, "
            "background, or a corruption of ImageNet-C with its severity, such as fog:3. By default the first four.",
        ),
    ] = None,
    lens_file: LensFile = None,
    model: ModelOptions,
    run: RunOptions,
    null_control: Annotated[
        bool, typer.Option("--null-control", help="Repeat the sweep with the model freshly initialised, into DIR/null.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a model over a dataset once, for any number of analyses.

    Writes one Parquet table per analysis, the model's accuracy, a list of the images that could not be read, and
    record.json, which states model, dataset and options. Images that cannot be read do not change the exit status,
    unless --stop is given. Progress is saved every 30 seconds (--checkpoint-every): after an interruption of any
    kind, the same command resumes. Under `accelerate launch` or `torchrun --no-python` the processes share the
    images; the tables do not change.

    Example: hooked-vit sweep --data emoji-scenes:1000 --analyses identifiability,updates,perturbation --out found
    """
    if null_control and model.random_weights:
        fail("--null-control is the model of --random-weights: it needs another one to control", USAGE)
    if null_control and lens_file is not None:
        fail("a lens fits one model: fit another one with --random-weights, and sweep with it, as a control", USAGE)
    names = [name.strip() for name in analyses.split(",") if name.strip()]
    with user_errors(ValueError, status=USAGE):
        chosen = make_analyses(names, methods or (), with_lens=lens_file is not None)
        with user_errors(ImportError):
            check_perturbations(perturbations or (), chosen)

    from analyses.commands.load_data import load_data
    from analyses.commands.load_lens import load_lens
    from analyses.commands.load_model import load_model
    from hooked_vit.initialisation import freshly_initialised

    report = Reporter("sweep", as_json)
    vit = load_model(model, report.progress)
    set_lens(chosen, load_lens(lens_file, vit))
    dataset = load_data(data, vit.class_names)
    with user_errors(ValueError, status=USAGE):
        set_perturbations(perturbations or (), chosen, dataset)
    options = {**run.arguments, "progress": report.progress}
    asked = {**model.record, "weights": model.weights and str(model.weights), "data": data}
    asked |= {} if lens_file is None else {"lens": str(lens_file)}
    tables = _sweep_into(out, vit, dataset, chosen, options, asked)
    null_tables = {}
    if null_control:
        null_asked = {**asked, "random_weights": True}
        null_tables = _sweep_into(out / "null", freshly_initialised(vit, seed=0), dataset, chosen, options, null_asked)
    if not _is_first_process():
        return
    report.add(**model.record, data=data)
    _report_images(report, tables, out)
    for name, table in tables.items():
        report.add_table(name, table)
        report.wrote(out / f"{name}.parquet")
    report.wrote(*(out / "null" / f"{name}.parquet" for name in null_tables))
    report.close()


def _sweep_into(
    folder: Path,
    model: "HookedViT",
    dataset: "LabelledImages",
    analyses: "Sequence[Analysis]",
    options: Mapping[str, Any],
    asked: Mapping[str, Any],
) -> "dict[str, pd.DataFrame]":
    """Sweep, and add to the record what a sweep itself cannot know: the names of its model and dataset."""
    from analyses.sweep.run import sweep as run_sweep
    from analyses.sweep.store import Store

    with user_errors(ValueError, TypeError, OSError, ImportError):
        tables = run_sweep(model, dataset, analyses, out=folder, **options)
        if _is_first_process():
            store = Store(folder)
            record = store.read_record() or {}
            if "asked" not in record:
                store.write_record({**record, "asked": {**asked, "date": datetime.now(UTC).strftime("%Y-%m-%d")}})
    return tables


def _report_images(report: Reporter, tables: "Mapping[str, pd.DataFrame]", out: Path) -> None:
    """The model's accuracy, and the images that were skipped."""
    accuracy, skipped = tables["accuracy"].iloc[0], tables["skipped"]
    if len(skipped):
        first, counted = skipped.iloc[0], "1 image" if len(skipped) == 1 else f"{len(skipped)} images"
        listed = f"{counted} left out, see {out / 'skipped.parquet'}"
        complain(f"{listed}; image {first['index']}: {first['reason']}", "skipped")
    report.say(f"{accuracy['n_images']:.0f} images: top-1 {accuracy['top1']:.2f} %, top-5 {accuracy['top5']:.2f} %")


def _is_first_process() -> bool:
    """Whether this process reports for all that share the images."""
    from torch import distributed

    return not distributed.is_initialized() or distributed.get_rank() == 0
