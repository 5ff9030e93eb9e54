"""A model against itself freshly initialised: what training, and not the architecture or chance, put there."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from analyses.analysis.tables import adjust_over_layers
from analyses.statistics.hypothesis_tests import signed_rank_test

__all__ = ["compare_with_null"]

_KEYS = ["layer", "stream", "token_type", "region"]


@runtime_checkable
class HasImages(Protocol):
    """An analysis that keeps a row of numbers for each image, such as `Identifiability`."""

    def images(self) -> pd.DataFrame:
        """Columns `index`, `layer`, `stream`, `token_type`, `region`, and numbers."""
        ...


def compare_with_null(
    measured: HasImages | pd.DataFrame, null: HasImages | pd.DataFrame, column: str = "identifiability"
) -> pd.DataFrame:
    """Is a model's identifiability above that of the model freshly initialised? Per block and kind of token.

    Wilcoxon's signed-rank test, one-sided, over images: an image's mean over its tokens under one model and under
    the other. (The paper, section 4, pairs all tokens of all images, which depend on each other.)

    Args:
        measured: The analysis after its pass over a dataset, or its `images()`.
        null: The same of `freshly_initialised(model, seed)`, over the same images.
        column: What to compare, of the columns of `images()`.

    Returns:
        A row for each block and kind of token: `layer`, `stream`, `token_type`, `region`, `metric`, `value` and
        `null` (means over images), `median_difference`, `rank_biserial`, `p_value`, `p_adjusted` (Holm's, over
        blocks), `n_images`. Of a single image the test's numbers are NaN.

    Raises:
        ValueError: If the two are not of the same images, blocks and kinds of tokens.

    >>> at = {"layer": 0, "stream": "resid_post", "token_type": "patch", "region": "all"}
    >>> measured = pd.DataFrame([{"index": i, **at, "identifiability": 0.75 + i / 100} for i in range(5)])
    >>> null = measured.assign(identifiability=0.5)
    >>> compare_with_null(measured, null)[["value", "null", "p_value"]].round(5).values.tolist()
    [[0.77, 0.5, 0.03125]]
    """
    tables = [one if isinstance(one, pd.DataFrame) else one.images() for one in (measured, null)]
    ours, theirs = (table.set_index([*_KEYS, "index"])[column].sort_index() for table in tables)
    if not ours.index.equals(theirs.index):
        raise ValueError(
            f"expected the same images, blocks and tokens of both, got {len(ours)} and {len(theirs)} rows, "
            f"{len(ours.index.intersection(theirs.index))} in common: run both over one dataset"
        )
    rows: list[dict[str, Any]] = []
    keys: Any
    for keys, x in ours.groupby(level=_KEYS):
        y = theirs.loc[x.index]
        test = signed_rank_test(x.to_numpy(), y.to_numpy(), "greater") if len(x) > 1 else None
        rows.append(
            {
                **dict(zip(_KEYS, keys, strict=True)),
                "metric": column,
                "value": x.mean(),
                "null": y.mean(),
                "median_difference": test.median_difference if test else np.nan,
                "rank_biserial": test.rank_biserial if test else np.nan,
                "p_value": test.p_value if test else np.nan,
                "n_images": len(x),
            }
        )
    table = pd.DataFrame(rows)
    p_values = table["p_value"].to_numpy(dtype=float)
    return table.assign(p_adjusted=adjust_over_layers(p_values, pd.DataFrame(rows, columns=_KEYS)))
