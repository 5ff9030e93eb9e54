"""`hooked-vit models`: the covered models, and those that match a pattern."""

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

_N_EXPLAINED = 5  # each is built to find out why it is not covered, which takes a moment


def models(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Part of a name, or a full name with wildcards: 'dinov2', '*small*.augreg_in1k'."),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained/--all", help="Only models with published weights, or all architectures.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the covered models: every name that --model takes, with the properties of each.

    Without a pattern, all of them: the bundled models, and every covered architecture and tag of timm. With a pattern,
    timm's other matching models are listed, too, with the part that is not covered. Nothing is downloaded. The column
    "million" counts parameters; "off by" is how far the logits are from timm's own, divided by the largest; 0 means
    bitwise equal. --json adds more properties, such as heads, image size and the same for bfloat16.

    Example: hooked-vit models '*patch16*augreg*' --pretrained
    """
    from hooked_vit.covered_models import why_not_covered

    report = Reporter("models", as_json)
    table, uncovered = _matching(pattern)
    if pretrained:
        table = table.query("pretrained")
    # an exact match comes first
    explained = sorted(uncovered, key=lambda name: name != pattern)[:_N_EXPLAINED]
    reasons = {name: why_not_covered(name) if name in explained else None for name in uncovered}
    report.add(pattern=pattern, pretrained_only=pretrained)
    report.add_table("models", table)
    report.add(not_covered=[{"name": name, "reason": reason} for name, reason in reasons.items()])
    if len(table):
        n_architectures, n_weights = len(set(table["architecture"])), table["pretrained"].tolist().count(True)
        report.show(_table(table), whole=True)
        report.say(f"{_counted(n_architectures, 'architecture')}, {_counted(n_weights, 'set')} of weights")
    for name in explained:
        report.say(f"not covered: {name}: {reasons[name]}")
    if len(uncovered) > len(explained):
        report.say(f"not covered: {len(uncovered) - len(explained)} more of timm's; --json names them")
    report.close()


def _matching(pattern: str | None) -> "tuple[pd.DataFrame, list[str]]":
    """The covered models that match, and timm's other names that match; all covered ones, without a pattern."""
    import pandas as pd
    import timm

    from hooked_vit.covered_models import covered_models

    table = covered_models()
    if pattern is None:
        return table, []
    architectures = set(table["architecture"])
    uncovered = [name for name in timm.list_models() if name not in architectures and _matches(name, pattern)]
    covered = [_matches(name, pattern) for name in table["name"]]
    if not any(covered) and not uncovered:
        fail(f"no model matches '{pattern}'{_nearest(pattern, [*table['name'], *architectures])}")
    return pd.DataFrame(table[covered]), uncovered


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _matches(name: str, pattern: str) -> bool:
    """With a wildcard, the whole name or its architecture; without, any part; case is ignored."""
    name, pattern = name.casefold(), pattern.casefold()
    if re.search(r"[*?\[]", pattern):
        return fnmatchcase(name, pattern) or fnmatchcase(name.partition(".")[0], pattern)
    return pattern in name


def _nearest(pattern: str, names: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(pattern.strip("*"), names, n=3, cutoff=0.5)
    return f"; the nearest names are {', '.join(near)}" if near else "; `hooked-vit models` lists all"


def _difference(relative: float) -> str:
    """How far logits are from timm's; 0 for bitwise equality."""
    return "–" if relative != relative else f"{relative:.0e}" if relative else "0"


def _table(table: "pd.DataFrame") -> "Table":
    from rich.table import Table

    printed = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("name", "pool", "prefix", "grid"):
        printed.add_column(column, no_wrap=True)
    for column in ("width", "blocks", "classes", "million", "off by"):
        printed.add_column(column, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        grid = "×".join(str(size) for size in row["grid"])
        counts = (f"{row[name]:,}" for name in ("d_model", "n_layers", "n_classes"))
        words = (row["name"], row["pool"], row["prefix_tokens"] or "–", grid)
        printed.add_row(*words, *counts, f"{row['n_parameters'] / 1e6:,.1f}", _difference(row["fp32"]))
    return printed
