"""The first block whose loss is beyond chance is found, and none where there is none."""

import pandas as pd
import pytest

from analyses.robustness import breaking_blocks


def rows(token_type: str, blocks: list[tuple[float, float, float]]) -> list[dict[str, object]]:
    """Rows of (change, upper end of its interval, adjusted p) for each block, in reverse order."""
    shared = {"perturbation": "fog", "token_type": token_type, "region": "all", "metric": "identifiability"}
    return [
        {**shared, "layer": layer, "value": value, "low": value - 0.1, "high": high, "p_adjusted": p}
        for layer, (value, high, p) in reversed(list(enumerate(blocks)))
    ]


def test_the_first_loss_beyond_chance() -> None:
    cls = [(0.1, 0.2, 0.01), (-0.1, 0.1, 0.5), (-0.1, -0.05, 0.2), (-0.2, -0.1, 0.04), (-0.1, -0.05, 0.01)]
    table = pd.DataFrame(rows("cls", cls) + rows("patch", [(0.0, 0.1, 0.9)] * 4 + [(-0.01, 0.01, 0.3)]))
    noise = table.assign(region="object")
    found = breaking_blocks(pd.concat([table, noise])).set_index("token_type")
    assert found.loc["cls", ["block", "value", "largest_block"]].tolist() == [3, -0.2, 3]
    assert pd.isna(found.loc["patch", "block"])
    assert found.loc["patch", ["largest_block", "largest_value"]].tolist() == [4, -0.01]
    assert breaking_blocks(table, level=0.3).set_index("token_type").loc["cls", "block"] == 2


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"expected a level between 0 and 1, such as 0\.05, got 5"):
        breaking_blocks(pd.DataFrame(), level=5.0)
