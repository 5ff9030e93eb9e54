"""Means over tokens for all images, for those classified correctly and wrongly, and what tells the two apart."""

import dataclasses

import numpy as np
import pandas as pd
from jaxtyping import Bool

from analyses.analysis.groups import TOKEN_GROUPS
from analyses.analysis.tables import GroupSums, difference_rows, object_minus_context, ratio_rows
from analyses.statistics.intervals import Resampling

__all__ = ["correctness_tables"]

_OF_TYPE = [place for place, (_, region) in enumerate(TOKEN_GROUPS.values()) if region == "all"]
_PATCH = list(TOKEN_GROUPS).index("patch")


def correctness_tables(of: GroupSums, correct: Bool[np.ndarray, "image"], resampling: Resampling) -> pd.DataFrame:
    """`ratio_rows` of all, correctly and wrongly classified images, and `difference_rows` of the latter two.

    Adds a column `images`: `all`, `correct`, `wrong`, or `correct_minus_wrong`, a permutation test on images. Besides
    the kinds of token there are rows of all tokens together, `token_type` `all`; and, over all images, those of
    `object_minus_context`.

    >>> n_tokens = np.array([[1, 0, 0, 2, 0, 0], [1, 0, 0, 2, 0, 0]])
    >>> sums = GroupSums.of_layers(np.array([[[1, 0, 0, 2, 0, 0]], [[0, 0, 0, 1, 0, 0]]]), n_tokens, metric="mean")
    >>> table = correctness_tables(sums, np.array([True, False]), Resampling(9))
    >>> table.query("images == 'correct'")[["token_type", "value"]].values.tolist()
    [['cls', 1.0], ['patch', 1.0], ['all', 1.0]]
    """
    together = _all_tokens(of)
    tables = [object_minus_context(of, resampling).assign(images="all")]
    for images, chosen in (("all", np.ones_like(correct)), ("correct", correct), ("wrong", ~correct)):
        if chosen.any():
            for part, renamed in ((of, {}), (together, {"token_type": "all"})):
                rows = ratio_rows(part.of_images(chosen), resampling)
                tables.append(rows.assign(images=images, **renamed))
    kinds = [(of, group, *columns) for group, columns in TOKEN_GROUPS.items()]
    for part, group, token_type, region in [*kinds, (together, "patch", "all", "all")]:
        right, wrong = (part.of_images(chosen & part.has(group)).means(group) for chosen in (correct, ~correct))
        rows = difference_rows(right, wrong, of.rows, resampling, paired=False)
        tables.append(rows.assign(images="correct_minus_wrong", token_type=token_type, region=region))
    return pd.concat([one for one in tables if len(one)], ignore_index=True)


def _all_tokens(of: GroupSums) -> GroupSums:
    """The tokens of every type as one group, in the place of the patches."""

    def united(per_group: np.ndarray) -> np.ndarray:
        only = np.zeros_like(per_group)
        only[..., _PATCH] = per_group[..., _OF_TYPE].sum(axis=-1)
        return only

    return dataclasses.replace(
        of, sums=united(of.sums), counts=united(np.ascontiguousarray(of.counts)), n_tokens=united(of.n_tokens)
    )
