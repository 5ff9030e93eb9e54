"""One analysis in a report: its definition, its numbers, its figures and its table."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from analyses.catalogue import CATALOGUE, Definition, definition_of, figures_of
from analyses.catalogue.published import PublishedModel
from analyses.pages.page import picture_url
from analyses.pages.report.quantities import Quantity, has_blocks, quantities_of
from analyses.sweep.output import SweepOutput

__all__ = ["Picture", "Section", "section_of"]

_MAX_ROWS = 300
_REPRODUCIBLE: Any = {"svg.hashsalt": "hooked-vit", "svg.fonttype": "path"}  # the same SVG each time


@dataclass(frozen=True)
class Picture:
    """A figure: its `data:` address, its caption, and its width in inches."""

    url: str
    caption: str
    inches: float


@dataclass(frozen=True)
class Section:
    """What the page shows of an analysis; all of it is plain text, which the page escapes.

    Attributes:
        name: The table.
        definition: What the analysis measures, in words.
        counts: Numbers of images and tokens.
        measured: The heading of the quantities: where they are measured.
        quantities: The headline numbers as text.
        has_control: Whether any of them has a control.
        has_published: Whether any of them has a published value.
        pictures: The figures.
        problem: Why there are no quantities or figures; "" if there are.
        columns: The columns of the table.
        rows: Its first rows, as text.
        n_rows: The number of all rows.
    """

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
    """The section of a report for one table of a sweep.

    Args:
        found: The sweep.
        name: The table.
        null: The sweep of the untrained model.
        published: The published values of this model.
    """
    # accuracy is a table of the sweep itself, which no analysis computed
    analysis, table = found.kind(name) or name, found.tables[name]
    null_table = None
    if null is not None and null.kind(name) == found.kind(name):
        null_table = null.tables.get(name)
    known, known_null = (None, None) if published is None else (published.values, published.untrained)
    quantities, pictures, problem = [], [], ""
    try:
        quantities = quantities_of(analysis, table, null_table, known, known_null)
        pictures = _pictures(found, name, null_table)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        missing = "it lacks " if isinstance(error, KeyError) else ""
        problem = missing + (" ".join(str(error).split()) or type(error).__name__)
    shown = table.head(_MAX_ROWS)
    return Section(
        name,
        definition_of(analysis, name, found.record.get("definitions", {}).get(name)),
        _counts(table),
        "after the last block" if has_blocks(analysis) else "",
        [_as_text(quantity) for quantity in quantities],
        any(math.isfinite(quantity.control) for quantity in quantities),
        any(math.isfinite(quantity.published) for quantity in quantities),
        pictures,
        problem,
        [str(column) for column in table.columns],
        [[_cell(value) for value in row] for row in shown.itertuples(index=False)],
        len(table),
    )


def _pictures(found: SweepOutput, name: str, null_table: pd.DataFrame | None) -> list[Picture]:
    analysis, table = found.kind(name), found.tables[name]
    figures = figures_of(analysis, table, found.n_classes, null_table)
    if null_table is None or (analysis in CATALOGUE and CATALOGUE[analysis].draws_null):
        return [_picture(figure, _metric(suffix)) for suffix, figure in figures.items()]
    null_figures = figures_of(analysis, null_table, found.n_classes)
    return [
        _picture(figure, ", ".join(filter(None, (source, _metric(suffix)))))
        for source, drawn in (("This model", figures), ("Null control: the model freshly initialised", null_figures))
        for suffix, figure in drawn.items()
    ]


def _metric(suffix: str) -> str:
    """The metric of a figure, in words, from the suffix of its file name."""
    return suffix.removeprefix("-").replace("_", " ")


def _picture(figure: Figure, caption: str) -> Picture:
    buffer = io.BytesIO()
    with rc_context(_REPRODUCIBLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Picture(picture_url(buffer.getvalue(), "svg+xml"), caption, float(figure.get_size_inches()[0]))


def _counts(table: pd.DataFrame) -> str:
    """Numbers of images, tokens and classes, as far as the table has them."""
    counts = []
    for column, word in (("n_images", "images"), ("n_tokens", "tokens"), ("n_classes", "classes")):
        numbers = table[column].dropna().tolist() if column in table else []
        if numbers and all(isinstance(number, int | float) for number in numbers):
            counts.append(f"{'up to ' if word == 'tokens' else ''}{max(numbers):,.0f} {word}")
    return ", ".join(counts)


def _as_text(quantity: Quantity) -> dict[str, str]:
    digits = 2 if quantity.unit else 3  # as in the paper: percentages, and numbers below 1

    def short(value: float) -> str:
        return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else ""

    published = short(quantity.published)
    if math.isfinite(quantity.published_control):
        published += f" (untrained {quantity.published_control:.3f})"
    return {
        "label": quantity.label,
        "value": f"{short(quantity.value)} {quantity.unit}".strip(),
        "interval": f"{short(quantity.low)} to {short(quantity.high)}" if math.isfinite(quantity.low) else "",
        "control": short(quantity.control),
        "published": published,
    }


def _cell(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
