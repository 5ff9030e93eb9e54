"""From sums over each image's tokens to rows of a tidy table, with intervals and tests over images."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Num

from analyses.analysis.groups import TOKEN_GROUPS
from analyses.statistics.corrections import adjust_p_values
from analyses.statistics.hypothesis_tests import permutation_tests
from analyses.statistics.intervals import Resampling

__all__ = [
    "GroupSums",
    "adjust_over_layers",
    "before_after_rows",
    "difference_rows",
    "object_minus_context",
    "ratio_rows",
    "rows_where",
]

_TESTS = ("p_value", "p_adjusted", "effect_size")


def rows_where(table: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    """The rows that have these values, by column; a missing value equals none.

    >>> rows_where(pd.DataFrame({"layer": [0, 1], "head": [2.0, None]}), {"head": 2})["layer"].tolist()
    [0]
    """
    chosen = np.ones(len(table), dtype=bool)
    for name, value in where.items():
        chosen &= table[name].eq(value).fillna(False).to_numpy(dtype=bool)
    return pd.DataFrame(table[chosen])


@dataclass(frozen=True)
class GroupSums:
    """Sums over each image's tokens, for each group of tokens and each row of the table to come.

    Attributes:
        sums: The sums, of ranks for instance.
        counts: The divisors of the sums, such as the number of tokens; 0 where a group has none.
        n_tokens: Number of tokens of each image and group, whatever `counts` holds.
        rows: The columns that identify a row: `layer`, `metric` and others.
    """

    sums: Float[np.ndarray, "image row group"]
    counts: Int[np.ndarray, "image row group"]
    n_tokens: Int[np.ndarray, "image group"]
    rows: pd.DataFrame

    @classmethod
    def of_layers(
        cls,
        sums: Num[np.ndarray, "image layer group"],
        n_tokens: Int[np.ndarray, "image group"],
        first_layer: int = 0,
        counts: Int[np.ndarray, "image layer group"] | None = None,
        **columns: Any,
    ) -> "GroupSums":
        """One row per layer, with the same `columns`; sums are divided by `counts`, by default the number of tokens."""
        by_token = np.broadcast_to(n_tokens[:, None], sums.shape)
        rows = pd.DataFrame({"layer": first_layer + np.arange(sums.shape[1]), **columns})
        return cls(sums.astype(np.float64), by_token if counts is None else counts, n_tokens, rows)

    @classmethod
    def stack(cls, parts: Sequence["GroupSums"]) -> "GroupSums":
        """The rows of all parts, of the same images."""
        return cls(
            np.concatenate([part.sums for part in parts], axis=1),
            np.concatenate([part.counts for part in parts], axis=1),
            parts[0].n_tokens,
            pd.concat([part.rows for part in parts], ignore_index=True),
        )

    def of_images(self, chosen: Any) -> "GroupSums":
        """The sums of some images, by an index or mask of the image axis."""
        return GroupSums(self.sums[chosen], self.counts[chosen], self.n_tokens[chosen], self.rows)

    def means(self, group: str) -> Float[np.ndarray, "image row"]:
        """Each image's mean over the tokens of a group."""
        index = list(TOKEN_GROUPS).index(group)
        return self.sums[:, :, index] / self.counts[:, :, index]

    def has(self, group: str) -> np.ndarray:
        """Whether each image has tokens of a group."""
        return self.n_tokens[:, list(TOKEN_GROUPS).index(group)] > 0


def ratio_rows(sums: GroupSums, resampling: Resampling) -> pd.DataFrame:
    """The mean over tokens, for each row and each group that has tokens.

    Adds columns `token_type`, `region`; `value`, the sum over all images divided by the count over all images;
    `low` and `high`, its percentile bootstrap interval over images; `n_images` and `n_tokens`.

    >>> n_tokens = np.array([[1, 0, 0, 2, 0, 0], [1, 0, 0, 2, 0, 0]])
    >>> sums = GroupSums.of_layers(np.array([[[1, 0, 0, 3, 0, 0]], [[0, 0, 0, 1, 0, 0]]]), n_tokens, metric="mean")
    >>> table = ratio_rows(sums, Resampling())
    >>> table[["layer", "token_type", "region", "metric", "value", "n_images", "n_tokens"]].values.tolist()
    [[0, 'cls', 'all', 'mean', 0.5, 2, 2], [0, 'patch', 'all', 'mean', 1.0, 2, 4]]
    """
    tables = []
    for index, (group, (token_type, region)) in enumerate(TOKEN_GROUPS.items()):
        # only images that have any of these tokens, so that no resample is without
        chosen = sums.of_images(sums.has(group))
        if not len(chosen.sums):
            continue
        interval = resampling.ratio(chosen.sums[:, :, index], chosen.counts[:, :, index])
        numbers = {"value": interval.estimate, "low": interval.low, "high": interval.high}
        size = {"n_images": len(chosen.sums), "n_tokens": int(chosen.n_tokens[:, index].sum())}
        tables.append(sums.rows.assign(token_type=token_type, region=region, **numbers, **size))
    return pd.concat(tables, ignore_index=True)


def difference_rows(
    a: Float[np.ndarray, "image row"],
    b: Float[np.ndarray, "other_image row"],
    rows: pd.DataFrame,
    resampling: Resampling,
    *,
    paired: bool,
) -> pd.DataFrame:
    """The difference of means over images, `a` minus `b`, with a permutation test on images, for each row.

    Adds columns `value`, `low`, `high` (its bootstrap interval), `n_images`, `p_value`, `p_adjusted` (see
    `adjust_over_layers`) and `effect_size`: Cohen's d for pairs, Cliff's delta otherwise. No rows
    where a group has fewer than two images.

    Args:
        a: One number per image and row.
        b: The numbers of another group of images, or of the same images if `paired`.
        rows: The columns that identify a row.
        resampling: Bootstrap interval and permutation test.
        paired: Whether image i is the same in `a` and `b`.

    >>> a, b = np.array([[0.5], [0.75], [1.0]]), np.array([[0.25], [0.5], [0.75]])
    >>> table = difference_rows(a, b, pd.DataFrame({"layer": [0]}), Resampling(), paired=True)
    >>> table[["value", "p_value", "n_images"]].values.tolist()
    [[0.25, 0.25, 3.0]]
    """
    if min(len(a), len(b)) < 2:
        return pd.DataFrame()
    n_resamples, seed = resampling.n_resamples, resampling.seed
    tests = permutation_tests(a, b, paired=paired, n_resamples=n_resamples, seed=seed)
    if paired:
        interval = resampling.interval(a - b)
    else:
        interval = resampling.difference(a, b)
    p_values = np.array([test.p_value for test in tests])
    return rows.assign(
        value=[test.difference for test in tests],
        low=interval.low,
        high=interval.high,
        n_images=len(a) if paired else len(a) + len(b),
        p_value=p_values,
        p_adjusted=adjust_over_layers(p_values, rows),
        effect_size=[test.effect_size for test in tests],
    )


def before_after_rows(before: GroupSums, after: GroupSums, resampling: Resampling) -> pd.DataFrame:
    """The mean over tokens in two runs of the same images and tokens, for each row and each group that has tokens.

    Adds to `ratio_rows` of the change, `after - before`, the columns `before` and `after`, and those of
    `difference_rows`, whose test pairs the means of each image.

    >>> n_tokens = np.array([[1, 0, 0, 2, 0, 0], [1, 0, 0, 2, 0, 0]])
    >>> before = GroupSums.of_layers(np.array([[[1, 0, 0, 3, 0, 0]], [[0, 0, 0, 1, 0, 0]]]), n_tokens, metric="mean")
    >>> after = dataclasses.replace(before, sums=before.sums / 2)
    >>> before_after_rows(before, after, Resampling(9))[["token_type", "before", "after", "value"]].values.tolist()
    [['cls', 0.5, 0.25, -0.25], ['patch', 1.0, 0.5, -0.5]]
    """
    change = dataclasses.replace(before, sums=after.sums - before.sums)
    tables = []
    for index, (group, (token_type, region)) in enumerate(TOKEN_GROUPS.items()):
        chosen = change.has(group)
        if not chosen.any():
            continue
        rows = change.rows.assign(token_type=token_type, region=region)
        for time, sums in (("before", before), ("after", after)):
            rows[time] = sums.sums[:, :, index].sum(axis=0) / sums.counts[:, :, index].sum(axis=0)
        means_after, means_before = (sums.of_images(chosen).means(group) for sums in (after, before))
        tests = difference_rows(means_after, means_before, change.rows, resampling, paired=True)
        tables.append(rows.assign(**{name: tests[name] for name in _TESTS if len(tests)}))
    return ratio_rows(change, resampling).merge(pd.concat(tables), how="left", validate="one_to_one")


def object_minus_context(sums: GroupSums, resampling: Resampling) -> pd.DataFrame:
    """`difference_rows` of the means over an image's object patches and over its context patches.

    Only images that show both are counted; no rows if there are fewer than two.
    """
    both = sums.of_images(sums.has("object") & sums.has("context"))
    rows = both.rows.assign(token_type="patch", region="object_minus_context")
    table = difference_rows(both.means("object"), both.means("context"), rows, resampling, paired=True)
    groups = [list(TOKEN_GROUPS).index(group) for group in ("object", "context")]
    return table.assign(n_tokens=int(both.n_tokens[:, groups].sum())) if len(table) else table


def adjust_over_layers(p_values: Float[np.ndarray, "row"], rows: pd.DataFrame) -> Float[np.ndarray, "row"]:
    """Holm's correction over layers, that is, over rows that differ only in `layer`.

    >>> rows = pd.DataFrame({"layer": [0, 1, 0], "metric": ["a", "a", "b"]})
    >>> adjust_over_layers(np.array([0.01, 0.04, 0.04]), rows).tolist()
    [0.02, 0.04, 0.04]
    """
    columns = [column for column in rows.columns if column != "layer"]
    kinds = rows.groupby(columns, dropna=False).ngroup().to_numpy() if columns else np.zeros(len(rows), dtype=int)
    adjusted = p_values.copy()
    for kind in np.unique(kinds):
        adjusted[kinds == kind] = adjust_p_values(p_values[kinds == kind])
    return adjusted
