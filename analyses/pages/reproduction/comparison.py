"""Measured numbers next to the published ones, each with a verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analyses.catalogue.published import PublishedModel
from analyses.pages.report.quantities import Quantity, quantities_of
from analyses.sweep.output import SweepOutput

__all__ = ["TOLERANCES", "Agreement", "Comparison", "compare_with_published"]

Agreement = Literal["agrees", "close", "differs", "not measured"]
TOLERANCES = {"%": 1.0, "": 0.01}
"""How far a `close` number may be from the published one, by unit: one percentage point, or 0.01."""


@dataclass(frozen=True)
class Comparison:
    """A published number and the measured one.

    Attributes:
        label: What the number is.
        unit: "%" or "".
        published: The published value.
        measured: The measured value; NaN if the sweep does not have it.
        low: The lower end of its interval; NaN if it has none.
        high: The upper end of its interval.
        verdict: `agrees` if the interval contains the published value, or the two are equal to the published digits;
            otherwise `close` within `TOLERANCES`, or `differs`.
    """

    label: str
    unit: str
    published: float
    measured: float
    low: float
    high: float
    verdict: Agreement


def compare_with_published(
    found: SweepOutput, null: SweepOutput | None, published: PublishedModel
) -> Sequence[Comparison]:
    """Every published number of a model next to the measured one.

    Args:
        found: The sweep of the model.
        null: The sweep of the untrained model.
        published: The published values.
    """
    comparisons: dict[str, Comparison] = {}
    for name, table in found.tables.items():
        kind = found.kind(name) or name
        null_table = None if null is None else null.tables.get(name)
        for quantity in quantities_of(kind, table, null_table, published.values, published.untrained):
            if math.isfinite(quantity.published):
                comparisons.setdefault(quantity.key, _compared(quantity))
            if math.isfinite(quantity.published_control):
                comparisons.setdefault(f"{quantity.key}, untrained", _compared_control(quantity))
    for key in published.values:
        if key not in comparisons:
            label, nan = key.replace("_", " ").replace("/", ", "), math.nan
            comparisons[key] = Comparison(label, "", published.values[key], nan, nan, nan, "not measured")
    return list(comparisons.values())


def _compared(quantity: Quantity) -> Comparison:
    verdict = _verdict(quantity.published, quantity.value, quantity.low, quantity.high, quantity.unit)
    return Comparison(
        quantity.label, quantity.unit, quantity.published, quantity.value, quantity.low, quantity.high, verdict
    )


def _compared_control(quantity: Quantity) -> Comparison:
    """The untrained model is another random draw than the paper's, and its number has no interval here."""
    verdict = _verdict(quantity.published_control, quantity.control, math.nan, math.nan, quantity.unit)
    label = f"{quantity.label}, untrained model"
    return Comparison(label, quantity.unit, quantity.published_control, quantity.control, math.nan, math.nan, verdict)


def _verdict(published: float, measured: float, low: float, high: float, unit: str) -> Agreement:
    if math.isnan(measured):
        return "not measured"
    digits = 2 if unit else 3  # as published
    if low <= published <= high or round(measured, digits) == round(published, digits):
        return "agrees"
    return "close" if abs(measured - published) <= TOLERANCES.get(unit, 0.01) else "differs"
