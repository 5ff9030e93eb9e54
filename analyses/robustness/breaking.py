"""The block at which a perturbation breaks the class representation, for CLS and for patches."""

from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from analyses.analysis.tables import rows_where

__all__ = ["breaking_blocks"]

_COLUMNS = ["perturbation", "token_type", "block", "value", "low", "high", "p_adjusted", "largest_block",
            "largest_value"]  # fmt: skip


def breaking_blocks(table: pd.DataFrame, level: float = 0.05) -> pd.DataFrame:
    """The first block after which a perturbation lowers class identifiability, for each kind of token.

    A block counts if the change is below zero, its interval too, and `p_adjusted` is below `level`: the correction over
    blocks makes an early block by chance unlikely.

    Args:
        table: `Robustness().compute()`.
        level: The level of the tests.

    Returns:
        A row for each perturbation and `token_type`: `block`, missing if there is none, with the numbers of its row;
        and the block with the largest loss, `largest_block`, with its change `largest_value`. Rows of
        `cls_minus_patch` hold the first block after which CLS loses more than the patches.

    Raises:
        ValueError: If the level is not between 0 and 1.

    >>> row = {"perturbation": "fog", "token_type": "cls", "region": "all", "metric": "identifiability"}
    >>> changes = [(0, -0.01, 0.02, 0.9), (1, -0.2, -0.1, 0.01), (2, -0.3, -0.2, 0.01)]
    >>> table = pd.DataFrame([
    ...     {**row, "layer": layer, "value": value, "low": value - 0.1, "high": high, "p_adjusted": p}
    ...     for layer, value, high, p in changes
    ... ])
    >>> breaking_blocks(table)[["block", "value", "largest_block", "largest_value"]].values.tolist()
    [[1, -0.2, 2, -0.3]]
    """
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, such as 0.05, got {level}")
    rows = rows_where(table, {"metric": "identifiability", "region": "all"})
    found = []
    for kind in pd.DataFrame(rows[["perturbation", "token_type"]]).drop_duplicates().to_dict("records"):
        blocks = rows_where(rows, {str(name): kind[name] for name in kind}).sort_values(by="layer").to_dict("records")
        lower = [row for row in blocks if max(row["value"], row["high"]) < 0 and row["p_adjusted"] < level]
        first: dict[Any, Any] = lower[0] if lower else {}
        largest = min(blocks, key=itemgetter("value"))
        numbers = {name: first.get(name, np.nan) for name in ("value", "low", "high", "p_adjusted")}
        found.append(
            {
                **kind,
                "block": first.get("layer", pd.NA),
                **numbers,
                "largest_block": largest["layer"],
                "largest_value": largest["value"],
            }
        )
    return pd.DataFrame(found).reindex(columns=_COLUMNS).astype({"block": "Int64", "largest_block": "Int64"})
