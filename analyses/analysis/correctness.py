"""Means over tokens for all, correctly and wrongly classified images, and the difference between the latter two."""

import dataclasses

import numpy as np
import pandas as pd
from jaxtyping import Bool

from analyses.analysis.groups import TOKEN_GROUPS
from analyses.analysis.tables import GroupSums, difference_rows, object_minus_context, ratio_rows
from analyses.statistics.intervals import Resampling

__all__ = ["correctness_tables"]

_TOKEN_TYPES = [group for group, (_, region) in enumerate(TOKEN_GROUPS.values()) if region == "all"]
_PATCH = list(TOKEN_GROUPS).index("patch")


def correctness_tables(
    sums: GroupSums, correct: Bool[np.ndarray, "image"], resampling: Resampling, *, all_tokens: bool = True
) -> pd.DataFrame:
    """`ratio_rows` of all, correctly and wrongly classified images, and `difference_rows` of the latter two.

    Adds a column `images`: `all`, `correct`, `wrong`, or `correct_minus_wrong`, a permutation test on images. Over all
    images there are also the rows of `object_minus_context`.

    Args:
        sums: Sums over each image's tokens.
        correct: Whether the model classifies each image correctly.
        resampling: Bootstrap intervals and permutation tests.
        all_tokens: Whether to add rows of all tokens together, with `token_type` `all`.

    >>> n_tokens = np.array([[1, 0, 0, 2, 0, 0], [1, 0, 0, 2, 0, 0]])
    >>> sums = GroupSums.of_layers(np.array([[[1, 0, 0, 2, 0, 0]], [[0, 0, 0, 1, 0, 0]]]), n_tokens, metric="mean")
    >>> table = correctness_tables(sums, np.array([True, False]), Resampling(9))
    >>> table.query("images == 'correct'")[["token_type", "value"]].values.tolist()
    [['cls', 1.0], ['patch', 1.0], ['all', 1.0]]
    """
    summed: list[tuple[GroupSums, dict[str, str]]] = [(sums, {})]
    groups = [(sums, group, token_type, region) for group, (token_type, region) in TOKEN_GROUPS.items()]
    if all_tokens:
        together = _all_tokens_as_patches(sums)
        summed.append((together, {"token_type": "all"}))
        groups.append((together, "patch", "all", "all"))
    tables = [object_minus_context(sums, resampling).assign(images="all")]
    for images, chosen in (("all", np.ones_like(correct)), ("correct", correct), ("wrong", ~correct)):
        if chosen.any():
            for part, columns in summed:
                tables.append(ratio_rows(part.of_images(chosen), resampling).assign(images=images, **columns))
    for part, group, token_type, region in groups:
        right, wrong = (part.of_images(chosen & part.has(group)).means(group) for chosen in (correct, ~correct))
        rows = difference_rows(right, wrong, sums.rows, resampling, paired=False)
        tables.append(rows.assign(images="correct_minus_wrong", token_type=token_type, region=region))
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


def _all_tokens_as_patches(sums: GroupSums) -> GroupSums:
    """The same sums with the tokens of every type in the group of the patches, and no other group."""

    def merged(per_group: np.ndarray) -> np.ndarray:
        result = np.zeros_like(per_group)
        result[..., _PATCH] = per_group[..., _TOKEN_TYPES].sum(axis=-1)
        return result

    return dataclasses.replace(
        sums, sums=merged(sums.sums), counts=merged(np.ascontiguousarray(sums.counts)), n_tokens=merged(sums.n_tokens)
    )
