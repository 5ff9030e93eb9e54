"""`hooked-vit reproduce`: the whole paper, or a rehearsal of it, as one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyses.commands.errors import USAGE, fail, user_errors
from analyses.commands.output import AsJson, Reporter, make_folder

if TYPE_CHECKING:
    from analyses.reproduction import Outcome, Study

__all__ = ["reproduce"]

_MODELS = "b32,b16,l16,miil,cifar,refinement,gap"


def reproduce(
    *,
    data: Annotated[
        str | None, typer.Option(metavar="KIND:PATH", help="ImageNet-S: imagenet-s:DIR?n=5 is the published setting.")
    ] = None,
    models: Annotated[str, typer.Option(metavar="NAME,…", help=f"Some of {_MODELS}.")] = _MODELS,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Weights of a model; cifar and refinement are not in timm. Repeatable."),
    ] = None,
    cifar: Annotated[
        str | None, typer.Option(metavar="KIND:PATH", help="Images for the model cifar: cifar100:DIR?n=5.")
    ] = None,
    probe_data: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:PATH",
            help="Images that the probes of b32 are fitted to, such as imagenet-s:DIR?partition=train-semi&masks=no; "
            "without it, the probe order is left out.",
        ),
    ] = None,
    rehearse: Annotated[
        int | None,
        typer.Option(metavar="N", help="Instead of the paper's models, the embedded ones on N Emoji Scenes each."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the sweeps and the page.", show_default=False)],
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images per forward pass.")] = 32,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only print what each model will cost, and what is missing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the paper's experiments on its models, as far as their weights are at hand, and write one page.

    First one batch of each model is timed, and the expected time and memory are printed. Models whose weights or images
    are not at hand are left out, and the page says why. Each published number is shown with the measured one, its
    interval and a verdict. After an interruption, the same command resumes.

    Example: hooked-vit reproduce --rehearse 200 --out rehearsal
    """
    if (data is None) == (rehearse is None):
        fail("give either --data imagenet-s:DIR?n=5, or --rehearse N", USAGE)
    report = Reporter("reproduce", as_json)
    with user_errors(ValueError, status=USAGE):
        studies = _studies(data, models, weights or [], cifar, probe_data, rehearse)
    make_folder(out)

    runnable = _announce(studies, out, batch_size, report)
    if not estimate:
        _run(studies, out, batch_size, rehearse is not None, report)
    elif not runnable:
        report.say("nothing can be run")
    report.close()


def _studies(
    data: str | None,
    models: str,
    weights: list[str],
    cifar: str | None,
    probe_data: str | None,
    n_scenes: int | None,
) -> "list[Study]":
    from analyses.reproduction import paper_studies, rehearsal_studies

    if n_scenes is not None:
        return rehearsal_studies(n_scenes)
    files: dict[str, Path] = {}
    for text in weights:
        name, separator, path = text.partition("=")
        if not separator:
            raise ValueError(f"--weights takes NAME=FILE, such as refinement=deit_base_trm.pth, got '{text}'")
        files[name] = Path(path)
    names = [name.strip() for name in models.split(",") if name.strip()]
    return paper_studies(str(data), names, weights=files, cifar=cifar, probe_data=probe_data)


def _announce(studies: "list[Study]", out: Path, batch_size: int, report: Reporter) -> int:
    """Print what each study will cost; returns how many can be run."""
    import pandas as pd

    from analyses.progress import working
    from analyses.reproduction.cost import duration
    from analyses.reproduction.run import estimate_study

    outcomes: list[Outcome] = []
    for study in studies:
        with working(f"timing {study.title}", report.progress), user_errors(ValueError):
            outcome = estimate_study(study, out, batch_size)
        outcomes.append(outcome)
        finished = outcome.folder is not None
        said = "finished" if finished else str(outcome.cost) if outcome.cost else f"left out: {outcome.reason}"
        report.say(f"{study.title}: {said}")
    report.add_table("cost", pd.DataFrame([_cost_row(outcome) for outcome in outcomes]))
    costs = [outcome.cost for outcome in outcomes if outcome.cost is not None]
    seconds = sum((cost.seconds for cost in costs), 0.0)
    report.say(f"in all about {duration(seconds)}")
    return len(costs)


def _cost_row(outcome: "Outcome") -> dict[str, object]:
    cost = vars(outcome.cost) if outcome.cost is not None else {"n_images": None, "seconds": None, "peak_bytes": None}
    return {"model": outcome.study.key, **cost, "left_out": outcome.reason}


def _run(studies: "list[Study]", out: Path, batch_size: int, rehearsal: bool, report: Reporter) -> None:
    import pandas as pd

    from analyses.pages.reproduction import reproduction_page
    from analyses.reproduction import run_study

    with user_errors(ValueError, OSError):
        outcomes = [
            run_study(study, out, batch_size=batch_size, progress=report.progress, say=report.say) for study in studies
        ]
        page = reproduction_page(outcomes, rehearsal=rehearsal)
    if not any(outcome.folder for outcome in outcomes):
        fail("no model could be run: " + "; ".join(f"{o.study.title}: {o.reason}" for o in outcomes))
    for table, rows in (("published", page.comparisons), ("claims", page.findings)):
        records = [{"model": key, **vars(row)} for key, found in rows.items() for row in found]
        if records:
            report.add_table(table, pd.DataFrame(records))
            report.save_csv(pd.DataFrame(records), out / f"{table}.csv")
    with user_errors(OSError):
        report.wrote(page.save(out / "reproduction.html"))
