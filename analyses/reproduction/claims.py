"""The paper's statements in words, each as a comparison of a measured number with its control."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from analyses.analysis.tables import rows_where

__all__ = ["CLAIMS", "Claim", "Finding", "Verdict", "check_claims"]

Verdict = Literal["holds", "does not hold", "undecided"]
Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Finding:
    """A claim, checked on one model.

    Attributes:
        claim: The statement.
        unit: "%", "points" (of percent), or "".
        measured: The measured number.
        low: The lower end of its interval.
        high: The upper end of its interval.
        compared_with: The number that it is compared with.
        verdict: `holds` if the whole interval is on the claim's side of that number, `does not hold` if it is all on
            the other side, else `undecided`.
    """

    claim: str
    unit: str
    measured: float
    low: float
    high: float
    compared_with: float
    verdict: Verdict


@dataclass(frozen=True)
class Claim:
    """A statement about a number.

    Attributes:
        text: The statement.
        analysis: The table that it needs.
        where: The values that select the row, by column; the row of the last block is taken, or with `best` that with
            the largest value.
        side: On which side of its control the number should be.
        unit: "%", "points" (of percent), or "".
        control: Takes the tables, those of the untrained model and the row; returns the number to compare with, or
            `None` if it is not at hand.
        best: Whether to take the block with the largest value.
    """

    text: str
    analysis: str
    where: Mapping[str, Any]
    side: Literal["above", "below"]
    unit: str
    control: Callable[[Tables, Tables, Mapping[str, Any]], float | None]
    best: bool = False


def _zero(tables: Tables, null: Tables, row: Mapping[str, Any]) -> float | None:
    return 0.0


def _untrained(tables: Tables, null: Tables, row: Mapping[str, Any]) -> float | None:
    """The upper end of the untrained model's interval for the same row."""
    table = null.get("identifiability")
    if table is None:
        return None
    rows = rows_where(table, {name: row[name] for name in ("layer", "stream", "token_type", "region", "metric")})
    return float(rows.iloc[0]["high"]) if len(rows) else None


def _random_order(tables: Tables, null: Tables, row: Mapping[str, Any]) -> float | None:
    """The area of the random order, in the same direction."""
    where = {"method": "random", "direction": row["direction"], "metric": row["metric"]}
    rows = rows_where(tables["faithfulness"], where)
    return float(rows.iloc[0]["value"]) if len(rows) else None


def _null_column(tables: Tables, null: Tables, row: Mapping[str, Any]) -> float | None:
    return float(row["null"])


_ALL = {"token_type": "patch", "region": "all"}
_ABOVE_RANDOM = {"metric": "agreement_rate_above_random", "token_type": "all", "images": "all"}
CLAIMS: Sequence[Claim] = (
    Claim("After the last block, patches identify their image's class better than those of an untrained model",
          "identifiability", {"stream": "resid_post", "metric": "identifiability", **_ALL}, "above", "", _untrained),
    Claim("More patch tokens have the class on top than in an untrained model", "identifiability",
          {"stream": "resid_post", "metric": "identifiability_rate", **_ALL}, "above", "%", _untrained),
    Claim("Without attention between tokens (self only), fewer patch tokens have the class on top", "perturbation",
          {"perturbation": "self_only", "metric": "identifiability_rate", **_ALL}, "below", "points", _zero),
    Claim("Without the context, fewer patch tokens on the object have the class on top", "perturbation",
          {"perturbation": "no_context", "metric": "identifiability_rate", **_ALL}, "below", "points", _zero),
    Claim("Without the object, fewer patch tokens of the context have the class on top", "perturbation",
          {"perturbation": "no_object", "metric": "identifiability_rate", **_ALL}, "below", "points", _zero),
    Claim("Keys agree with values more often than for a random class: MLP", "key_value_agreement",
          {"coefficients": "pre", **_ABOVE_RANDOM}, "above", "points", _zero, best=True),
    Claim("Keys agree with values more often than for a random class: attention", "key_value_agreement",
          {"coefficients": "z", **_ABOVE_RANDOM}, "above", "points", _zero, best=True),
    Claim("Value vectors of the last MLP are more like class embeddings than those of an untrained model",
          "class_value_agreement", {"stream": "mlp_out"}, "above", "", _null_column),
    Claim("Value vectors of the last attention layer are more like class embeddings than those of an untrained model",
          "class_value_agreement", {"stream": "attn_out"}, "above", "", _null_column),
    Claim("Removing unimportant patches first keeps accuracy higher than a random order", "faithfulness",
          {"method": "importance", "direction": "negative", "metric": "auc_published"}, "above", "", _random_order),
    Claim("Removing important patches first lowers accuracy faster than a random order", "faithfulness",
          {"method": "importance", "direction": "positive", "metric": "auc_published"}, "below", "", _random_order),
)  # fmt: skip
"""The statements of sections 4 to 6 that a sweep decides."""


def check_claims(tables: Tables, null: Tables) -> list[Finding]:
    """Check every claim whose table and row exist.

    Args:
        tables: The tables of a sweep, by analysis.
        null: The tables of the untrained model.

    >>> rows = {"method": ["importance", "random"], "direction": "negative", "metric": "auc_published"}
    >>> table = pd.DataFrame({**rows, "value": [0.8, 0.7], "low": [0.75, 0.6], "high": [0.85, 0.8]})
    >>> [finding.verdict for finding in check_claims({"faithfulness": table}, {})]
    ['holds']
    """
    findings = []
    for claim in CLAIMS:
        if claim.analysis not in tables or not claim.where.keys() <= set(tables[claim.analysis]):
            continue
        rows = rows_where(tables[claim.analysis], claim.where).dropna(subset=["value", "low", "high"])
        if not len(rows):
            continue
        if claim.best:
            rows = rows.sort_values("value")
        elif "layer" in rows:
            rows = rows.sort_values("layer")
        row = {str(name): value for name, value in rows.iloc[-1].items()}
        control = claim.control(tables, null, row)
        if control is not None:
            value, low, high = (float(row[name]) for name in ("value", "low", "high"))
            findings.append(
                Finding(claim.text, claim.unit, value, low, high, control, _verdict(claim.side, low, high, control))
            )
    return findings


def _verdict(side: Literal["above", "below"], low: float, high: float, control: float) -> Verdict:
    above, below = low > control, high < control
    if above or below:
        return "holds" if above == (side == "above") else "does not hold"
    return "undecided"
