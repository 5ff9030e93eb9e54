"""One analysis in a report: its definition, its numbers, its figures and its table."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from analyses.catalogue import CATALOGUE, Definition, definition_of, figures_of
from analyses.pages.page import picture_url
from analyses.pages.report.published import PublishedModel
from analyses.pages.report.quantities import Quantity, has_blocks, quantities_of
from analyses.sweep.output import SweepOutput

__all__ = ["Picture", "Section", "section_of"]

_MOST_ROWS = 300
_STILL: Any = {"svg.hashsalt": "hooked-vit", "svg.fonttype": "path"}  # the same page from the same tables


@dataclass(frozen=True)
class Picture:
    """A figure: its address, what stands above it, and its width in inches."""

    url: str
    caption: str
    inches: float


@dataclass(frozen=True)
class Section:
    """What the page shows of an analysis; all of it is plain text, to be escaped by the page."""

    name: str
    definition: Definition
    counts: str
    measured: str
    quantities: Sequence[Mapping[str, str]]
    has_control: bool
    has_published: bool
    pictures: Sequence[Picture]
    problem: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_rows: int


def section_of(
    found: SweepOutput, name: str, null: SweepOutput | None = None, published: PublishedModel | None = None
) -> Section:
    """What a report says of one table of a sweep.

    Args:
        found: The sweep.
        name: Of the table.
        null: The sweep of the untrained model.
        published: What is known of this model.
    """
    kind, table = found.kind(name), found.tables[name]
    of_null = None
    if null is not None and null.kind(name) == kind:
        of_null = null.tables.get(name)
    numbers, pictures, problem = [], [], ""
    try:
        numbers = quantities_of(kind, table, of_null, published and published.values, published and published.untrained)
        pictures = _pictures(found, name, of_null)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        lacks = "it lacks " if isinstance(error, KeyError) else ""
        problem = lacks + (" ".join(str(error).split()) or type(error).__name__)
    shown = table.head(_MOST_ROWS)
    return Section(
        name,
        definition_of(kind, name, found.record.get("definitions", {}).get(name)),
        _counts(table),
        "after the last block" if has_blocks(kind) else "",
        [_in_words(number) for number in numbers],
        any(math.isfinite(number.control) for number in numbers),
        any(math.isfinite(number.published) for number in numbers),
        pictures,
        problem,
        [str(column) for column in table.columns],
        [[_cell(value) for value in row] for row in shown.itertuples(index=False)],
        len(table),
    )


def _pictures(found: SweepOutput, name: str, of_null: pd.DataFrame | None) -> list[Picture]:
    kind, table = found.kind(name), found.tables[name]
    figures = figures_of(kind, table, found.n_classes, of_null)
    pictures = [_picture(figure, suffix.removeprefix("-").replace("_", " ")) for suffix, figure in figures.items()]
    if of_null is not None and not (kind in CATALOGUE and CATALOGUE[kind].draws_null):
        pictures = [replace(one, caption=f"This model{one.caption and ', '}{one.caption}") for one in pictures]
        for suffix, figure in figures_of(kind, of_null, found.n_classes).items():
            of = suffix.removeprefix("-").replace("_", " ")
            pictures.append(_picture(figure, f"Null control: the model freshly initialised{of and ', '}{of}"))
    return pictures


def _picture(figure: Figure, caption: str) -> Picture:
    buffer = io.BytesIO()
    with rc_context(_STILL):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Picture(picture_url(buffer.getvalue(), "svg+xml"), caption, float(figure.get_size_inches()[0]))


def _counts(table: pd.DataFrame) -> str:
    """Of images and tokens, as far as the table tells."""
    said = []
    for column, word in (("n_images", "images"), ("n_tokens", "tokens"), ("n_classes", "classes")):
        numbers = table[column].dropna().tolist() if column in table else []
        if numbers and all(isinstance(number, int | float) for number in numbers):
            said.append(f"{'up to ' if word == 'tokens' else ''}{max(numbers):,.0f} {word}")
    return ", ".join(said)


def _in_words(number: Quantity) -> dict[str, str]:
    digits = 2 if number.unit else 3  # as the paper prints percentages, and what is below 1

    def short(value: float) -> str:
        return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else ""

    published = short(number.published)
    if math.isfinite(number.published_control):
        published += f" (untrained {number.published_control:.3f})"
    return {
        "label": number.label,
        "value": f"{short(number.value)} {number.unit}".strip(),
        "interval": f"{short(number.low)} to {short(number.high)}" if math.isfinite(number.low) else "",
        "control": short(number.control),
        "published": published,
    }


def _cell(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
