"""The page of a reproduction: published and measured numbers with verdicts, and the paper's claims, for each model."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analyses.catalogue.published import SETTING, SOURCE, in_published_setting
from analyses.pages.page import render_page, write_page
from analyses.pages.report.build import report
from analyses.pages.reproduction.comparison import Comparison, compare_with_published
from analyses.reproduction import Finding, Outcome, check_claims
from analyses.sweep.output import SweepOutput, read_sweep

__all__ = ["ReproductionPage", "reproduction_page"]


@dataclass(frozen=True)
class ReproductionPage:
    """A page, and what it shows.

    Attributes:
        html: The page; it links to each model's `report.html`.
        comparisons: Published and measured numbers, by the study's key.
        findings: The claims, by the study's key.
    """

    html: str
    comparisons: Mapping[str, Sequence[Comparison]]
    findings: Mapping[str, Sequence[Finding]]

    def save(self, path: str | Path) -> Path:
        """Write the page to a file."""
        return write_page(self.html, path)


def reproduction_page(outcomes: Sequence[Outcome], *, rehearsal: bool = False) -> ReproductionPage:
    """One page for all studies; next to each finished sweep, its report is written.

    Args:
        outcomes: From `analyses.reproduction.run_study`.
        rehearsal: Whether these are the embedded models, for which nothing was published.

    Raises:
        ValueError: If a sweep is damaged or unfinished.
    """
    comparisons: dict[str, Sequence[Comparison]] = {}
    findings: dict[str, Sequence[Finding]] = {}
    studies = []
    for outcome in outcomes:
        if outcome.folder is None:
            continue
        study, found, null = outcome.study, read_sweep(outcome.folder), read_sweep(outcome.folder / "null")
        report(outcome.folder, model=study.model).save(outcome.folder / "report.html")
        published = study.published
        comparisons[study.key] = [] if published is None else compare_with_published(found, null, published)
        findings[study.key] = check_claims(_by_kind(found), _by_kind(null))
        shown = _shown(outcome, found, comparisons[study.key], findings[study.key])
        studies.append(shown)
    title = "The paper's experiments, rehearsed" if rehearsal else "The paper's experiments, repeated"
    page = render_page(
        "reproduction/reproduction.html",
        styles=["report/report.css", "reproduction/reproduction.css"],
        title=title,
        rehearsal=rehearsal,
        studies=studies,
        missing=[(outcome.study.title, outcome.reason) for outcome in outcomes if outcome.folder is None],
        source=SOURCE,
        setting=SETTING,
        made=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    return ReproductionPage(page, comparisons, findings)


def _by_kind(found: SweepOutput) -> dict[str, Any]:
    return {found.kind(name) or name: table for name, table in found.tables.items()}


def _shown(
    outcome: Outcome, found: SweepOutput, comparisons: Sequence[Comparison], findings: Sequence[Finding]
) -> dict[str, Any]:
    """What the template shows of a study, as text."""
    study, dataset = outcome.study, found.record["dataset"]
    counts = Counter(str(row.verdict) for row in (*comparisons, *findings))
    note = ""
    if comparisons and study.key != "cifar" and not in_published_setting(dataset):
        note = "These images are not the published ones, so the numbers are not comparable; they show how to read them."
    return {
        "key": study.key,
        "title": study.title,
        "model": study.model,
        "report": f"{study.key}/report.html",
        "n_images": f"{dataset['n_images']:,}",
        "note": note,
        "counts": counts,
        "comparisons": [
            {
                "label": row.label,
                "published": _number(row.published, row.unit),
                "measured": _number(row.measured, row.unit),
                "interval": _interval(row.low, row.high, row.unit),
                "verdict": row.verdict,
            }
            for row in comparisons
        ],
        "findings": [
            {
                "claim": row.claim,
                "measured": _number(row.measured, row.unit),
                "interval": _interval(row.low, row.high, row.unit),
                "compared_with": _number(row.compared_with, row.unit),
                "verdict": row.verdict,
            }
            for row in findings
        ],
    }


def _number(value: float, unit: str = "") -> str:
    if not math.isfinite(value):
        return ""
    return f"{value:.{2 if unit else 3}f} {unit}".strip().replace("-", "−")


def _interval(low: float, high: float, unit: str = "") -> str:
    digits = _number(low, unit).removesuffix(f" {unit}"), _number(high, unit).removesuffix(f" {unit}")
    return " to ".join(digits) if math.isfinite(low) and math.isfinite(high) else ""
