"""A claim is decided by its interval; every claim finds its row in the tables of a sweep."""

import pandas as pd
import pytest

from analyses.reproduction import CLAIMS, check_claims


def areas(low: float, high: float, direction: str, chance: float) -> pd.DataFrame:
    row = {"direction": direction, "metric": "auc_published"}
    return pd.DataFrame(
        [
            {"method": "importance", **row, "value": (low + high) / 2, "low": low, "high": high},
            {"method": "random", **row, "value": chance, "low": chance, "high": chance},
        ]
    )


@pytest.mark.parametrize(
    ("low", "high", "direction", "verdict"),
    [
        (0.6, 0.7, "negative", "holds"),
        (0.4, 0.6, "negative", "undecided"),
        (0.3, 0.4, "negative", "does not hold"),
        (0.3, 0.4, "positive", "holds"),
        (0.5, 0.6, "positive", "undecided"),
        (0.6, 0.7, "positive", "does not hold"),
    ],
)
def test_the_interval_decides(low: float, high: float, direction: str, verdict: str) -> None:
    [finding] = check_claims({"faithfulness": areas(low, high, direction, 0.5)}, {})
    assert (finding.verdict, finding.compared_with) == (verdict, 0.5)


def test_the_last_block_counts_or_the_best() -> None:
    key = {"stream": "mlp_out"}
    table = pd.DataFrame([{**key, "layer": layer, "value": value, "low": value, "high": value, "null": null}
                          for layer, value, null in ((1, 0.2, 0.3), (0, 0.9, 0.3))])  # fmt: skip
    [last] = check_claims({"class_value_agreement": table}, {})
    assert (last.measured, last.verdict) == (0.2, "does not hold")
    key = {"coefficients": "z", "metric": "agreement_rate_above_random", "token_type": "all", "images": "all"}
    table = pd.DataFrame(
        [{**key, "layer": layer, "value": v, "low": v, "high": v} for layer, v in ((0, 9.0), (1, -1.0))]
    )
    [best] = check_claims({"key_value_agreement": table}, {})
    assert (best.measured, best.verdict) == (9.0, "holds")


def test_a_claim_without_its_table_row_or_control_is_left_out() -> None:
    assert check_claims({}, {}) == []
    assert check_claims({"faithfulness": areas(0.6, 0.7, "negative", 0.5).iloc[:1]}, {}) == []
    assert len(CLAIMS) == 11
