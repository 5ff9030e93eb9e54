"""A model compared with itself freshly initialised: the effect of training, not of the architecture or chance."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from analyses.analysis.tables import adjust_over_layers
from analyses.statistics.hypothesis_tests import signed_rank_test

__all__ = ["compare_with_null"]

_KEYS = ["layer", "stream", "token_type", "region"]


@runtime_checkable
class HasImages(Protocol):
    """An analysis with a row of numbers per image, such as `Identifiability`."""

    def images(self) -> pd.DataFrame:
        """Columns `index`, `layer`, `stream`, `token_type`, `region`, and numbers."""
        ...


def compare_with_null(
    measured: HasImages | pd.DataFrame, null: HasImages | pd.DataFrame, column: str = "identifiability"
) -> pd.DataFrame:
    """Test per block and kind of token whether identifiability is above that of the freshly initialised model.

    The test is Wilcoxon's signed-rank test, one-sided, over images: it pairs an image's mean over its tokens under one
    model with that under the other. (The paper, section 4, pairs all tokens of all images, which depend on each other.)

    Args:
        measured: The analysis after its pass over a dataset, or its `images()`.
        null: The same for `freshly_initialised(model, seed)`, over the same images.
        column: The column of `images()` to compare.

    Returns:
        A row for each block and kind of token: `layer`, `stream`, `token_type`, `region`, `metric`, `value` and
        `null` (means over images), `median_difference`, `rank_biserial`, `p_value`, `p_adjusted` (Holm's, over
        blocks), `n_images`. For a single image the test's numbers are NaN.

    Raises:
        ValueError: If the two do not have the same images, blocks and kinds of tokens.

    >>> key = {"layer": 0, "stream": "resid_post", "token_type": "patch", "region": "all"}
    >>> measured = pd.DataFrame([{"index": i, **key, "identifiability": 0.75 + i / 100} for i in range(5)])
    >>> null = measured.assign(identifiability=0.5)
    >>> compare_with_null(measured, null)[["value", "null", "p_value"]].round(5).values.tolist()
    [[0.77, 0.5, 0.03125]]
    """
    tables = [result if isinstance(result, pd.DataFrame) else result.images() for result in (measured, null)]
    trained, untrained = (table.set_index([*_KEYS, "index"])[column].sort_index() for table in tables)
    if not trained.index.equals(untrained.index):
        raise ValueError(
            f"expected the same images, blocks and tokens in both, got {len(trained)} and {len(untrained)} rows, "
            f"{len(trained.index.intersection(untrained.index))} in common: run both over one dataset"
        )
    rows: list[dict[str, Any]] = []
    keys: Any
    for keys, x in trained.groupby(level=_KEYS):
        y = untrained.loc[x.index]
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
