"""Published numbers are compared with the measured ones of the same key."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analyses.catalogue.published import PUBLISHED, PublishedModel
from analyses.pages.reproduction import compare_with_published
from analyses.sweep.output import SweepOutput


def swept(**tables: pd.DataFrame) -> SweepOutput:
    record: dict[str, Any] = {"analyses": {name: {"type": name} for name in tables if name != "accuracy"}}
    return SweepOutput(Path("nowhere"), record, tables)


def rate(value: float, low: float, high: float) -> pd.DataFrame:
    row = {"layer": 0, "stream": "resid_post", "token_type": "patch", "region": "all", "metric": "identifiability_rate"}
    return pd.DataFrame([{**row, "value": value, "low": low, "high": high}])


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (62.0, 60.0, 64.0, "agrees"),
        (60.7342, float("nan"), float("nan"), "agrees"),  # equal to the published digits
        (61.5, 61.0, 62.0, "close"),
        (62.0, 61.0, 63.0, "differs"),
    ],
)
def test_verdicts(value: float, low: float, high: float, verdict: str) -> None:
    found = compare_with_published(
        swept(identifiability=rate(value, low, high)), None, PublishedModel("B", {"rate": 60.73}, {})
    )
    [row] = found
    assert (row.published, row.measured, row.verdict) == (60.73, value, verdict)


def test_what_was_not_measured_is_listed() -> None:
    found = compare_with_published(swept(identifiability=rate(60.0, 55.0, 65.0)), None, PUBLISHED["B/32"])
    missing = {row.label for row in found if row.verdict == "not measured" and "untrained" not in row.label}
    assert "auc negative, probe" in missing
    assert len(missing) == len(PUBLISHED["B/32"].values) - 1


def test_the_untrained_model_has_rows_of_its_own() -> None:
    published = PublishedModel("B", {"rate": 60.73}, {"rate": 0.066})
    found = compare_with_published(
        swept(identifiability=rate(60.0, 55.0, 65.0)), swept(identifiability=rate(0.9, 0.0, 1.0)), published
    )
    assert [(row.label[-15:], row.measured, row.verdict) for row in found][1] == ("untrained model", 0.9, "close")
