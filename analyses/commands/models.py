"""`hooked-vit models`: which models are covered, and which of them answer to a pattern."""

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import typer

from analyses.commands.errors import fail
from analyses.commands.output import AsJson, Reporter

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

__all__ = ["models"]

_EXPLAINED = 5  # each is built to say why it is not covered, which takes a moment


def models(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Part of a name, or a whole one with wildcards: 'dinov2', '*small*.augreg_in1k'."),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained/--all", help="Only names with published weights, or all architectures.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Which models are covered? Every name that --model takes, and what the model is like.

    Without a pattern, all of them: the embedded models, and every architecture and tag of timm's that is covered. What
    else of timm's answers to a pattern is named, too, with what of it is not covered. Nothing is downloaded. The
    last column counts parameters; --json tells more of each model, such as heads and pixels.

    Example: hooked-vit models '*patch16*augreg*' --pretrained
    """
    import pandas as pd
    import timm

    from hooked_vit.covered_models import covered_models, why_not_covered

    report, table = Reporter("models", as_json), covered_models()
    refused: list[str] = []
    if pattern is not None:
        architectures = set(table["architecture"])
        refused = [name for name in timm.list_models() if name not in architectures and _answers(name, pattern)]
        answering = [_answers(name, pattern) for name in table["name"]]
        if not any(answering) and not refused:
            fail(f"no model answers to '{pattern}'{_nearest(pattern, [*table['name'], *architectures])}")
        table = pd.DataFrame(table[answering])
    if pretrained:
        table = table.query("pretrained")
    # what one asks for by its whole name comes first
    explained = sorted(refused, key=lambda name: name != pattern)[:_EXPLAINED]
    reasons = {name: why_not_covered(name) if name in explained else None for name in refused}
    report.add(pattern=pattern, pretrained_only=pretrained)
    report.add_table("models", table)
    report.add(not_covered=[{"name": name, "reason": reason} for name, reason in reasons.items()])
    if len(table):
        n_architectures, n_weights = len(set(table["architecture"])), table["pretrained"].tolist().count(True)
        report.show(_table(table), whole=True)
        report.say(f"{_counted(n_architectures, 'architecture')}, {_counted(n_weights, 'set')} of weights")
    for name in explained:
        report.say(f"not covered: {name}: {reasons[name]}")
    if len(refused) > len(explained):
        report.say(f"not covered: {len(refused) - len(explained)} more of timm's; --json names them")
    report.close()


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _answers(name: str, pattern: str) -> bool:
    """With a wildcard, the whole name or its architecture; without, any part; upper and lower case are the same."""
    name, pattern = name.casefold(), pattern.casefold()
    if re.search(r"[*?\[]", pattern):
        return fnmatchcase(name, pattern) or fnmatchcase(name.partition(".")[0], pattern)
    return pattern in name


def _nearest(pattern: str, names: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(pattern.strip("*"), names, n=3, cutoff=0.5)
    return f"; the nearest names are {', '.join(near)}" if near else "; `hooked-vit models` lists all"


def _table(table: "pd.DataFrame") -> "Table":
    from rich.table import Table

    printed = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("name", "pool", "prefix", "grid"):
        printed.add_column(column, no_wrap=True)
    for column in ("width", "blocks", "classes", "million"):
        printed.add_column(column, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        grid = "×".join(str(size) for size in row["grid"])
        counts = (f"{row[name]:,}" for name in ("d_model", "n_layers", "n_classes"))
        words = (row["name"], row["pool"], row["prefix_tokens"] or "–", grid)
        printed.add_row(*words, *counts, f"{row['n_parameters'] / 1e6:,.1f}")
    return printed
