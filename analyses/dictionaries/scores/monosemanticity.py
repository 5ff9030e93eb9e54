"""Whether single features are the true factors: the best feature of each factor value, its AUROC and F1 held out."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.dictionaries.scores.factors import Factors
from analyses.dictionaries.scores.measurable import MIN_IMAGES, measurable, permuted
from analyses.dictionaries.scores.pooling import PooledFeatures, halves
from analyses.dictionaries.scores.ranking import auroc, best_f1, f1_at
from analyses.statistics.intervals import times_drawn

__all__ = ["compare_features", "factor_scores", "factor_summary"]

FOUND = 0.9
"""A factor value has its feature if the AUROC of the best one, on images that it was not chosen on, reaches this."""


def factor_scores(
    pooled: PooledFeatures, factors: Factors, *, min_images: int = MIN_IMAGES, seed: int = 0
) -> pd.DataFrame:
    """The best feature of each factor value, chosen on one half of the images and measured on the other.

    The feature with the largest AUROC, and the feature and threshold with the largest F1, are chosen on a random half.
    Their AUROC and F1 are those of the other half: with thousands of features, the best of them looks good on the
    images it was chosen on by chance alone. With few images of a value, it looks good on the others by chance, too:
    such values are left out.

    Args:
        pooled: The features.
        factors: The factors of the same images.
        min_images: The fewest images with a value, and without, that each half must have.
        seed: Seed of the halves.

    Returns:
        One row per value that has these images: `features`, `factor`, `factor_value`, `n_images` and `n_with`
        (measured on), `feature`, `auroc`, `chosen_auroc` (on the images it was chosen on), `f1_feature`, `threshold`,
        `f1`, `chance_f1` (of predicting the value for every image).

    Raises:
        ValueError: If the images differ in number, there are fewer than two, or `min_images` is below 1.

    >>> values = torch.tensor([[0.0, 1.0], [3.0, 1.0], [0.0, 0.0], [3.0, 0.0]]).repeat(8, 1)
    >>> labels = torch.tensor([0, 1]).repeat(16)
    >>> from analyses.dictionaries.scores.factors import label_factors
    >>> table = factor_scores(PooledFeatures("two", values, labels, labels), label_factors(labels, ["cat", "dog"]))
    >>> table[["factor_value", "feature", "auroc"]].values.tolist()[1]
    ['dog', 0, 1.0]
    """
    first, second = halves(_checked(pooled, factors), seed)
    chosen, measured = pooled.values[first].float(), pooled.values[second].float()
    columns = measurable(factors.truth, first, second, min_images=min_images)
    truth, held_out = factors.truth[first][:, columns], factors.truth[second][:, columns]
    areas = auroc(chosen, truth)
    feature = areas.argmax(dim=0)
    f1, thresholds = best_f1(chosen, truth)
    f1_feature = f1.argmax(dim=0)
    every = torch.arange(len(columns))
    n_with = held_out.sum(dim=0)
    return pd.DataFrame(
        {
            "features": pooled.name,
            "factor": [factors.names[column][0] for column in columns],
            "factor_value": [factors.names[column][1] for column in columns],
            "n_images": len(measured),
            "n_with": n_with.numpy(),
            "feature": feature.numpy(),
            "auroc": _paired_auroc(measured[:, feature], held_out).numpy(),
            "chosen_auroc": areas[feature, every].numpy(),
            "f1_feature": f1_feature.numpy(),
            "threshold": thresholds[f1_feature, every].double().numpy(),
            "f1": f1_at(measured[:, f1_feature], thresholds[f1_feature, every], held_out).numpy(),
            "chance_f1": (2 * n_with.double() / (n_with + len(measured))).numpy(),
        }
    )


def factor_summary(
    pooled: PooledFeatures,
    factors: Factors,
    *,
    min_images: int = MIN_IMAGES,
    seed: int = 0,
    found: float = FOUND,
    n_permutations: int = 5,
    n_resamples: int = 200,
    level: float = 0.95,
) -> pd.DataFrame:
    """Per factor, the mean AUROC and F1 of its values' best features, and how many values have their feature.

    Beside that number stands the null: how many values have a feature, chosen and measured likewise, if the factors
    belong to other images (permuted within each half).

    Args:
        pooled: As for `factor_scores`.
        factors: As there.
        min_images: As there.
        seed: Seed of the halves, the permutations and the resamples.
        found: The AUROC from which on a value counts as having its feature.
        n_permutations: Permutations that the null is the mean of.
        n_resamples: Resamples of the images that are measured on; features stay those chosen on the others.
        level: Of the interval.

    Returns:
        One row per factor: `features`, `n_features` (that are not constant), `factor`, `n_values`, `n_left_out` (values
        with too few images), `auroc`, `low` and `high` (its bootstrap interval over images), `f1`, `n_found`,
        `percent_found`, `null_found`. NaN for a factor without values.

    Raises:
        ValueError: If `n_permutations` is below 1, or as `factor_scores`.

    >>> labels = torch.tensor([0, 1]).repeat(16)
    >>> from analyses.dictionaries.scores.factors import label_factors
    >>> pooled = PooledFeatures("one", labels[:, None].half(), labels, labels)
    >>> factor_summary(pooled, label_factors(labels, ["cat", "dog"]))[["n_values", "n_found"]].values.tolist()
    [[2, 1]]
    """
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1, got {n_permutations}")
    table = factor_scores(pooled, factors, min_images=min_images, seed=seed)
    first, second = halves(len(pooled), seed)
    columns = measurable(factors.truth, first, second, min_images=min_images)
    null = _null_auroc(pooled, factors.truth[:, columns], n_permutations, seed)
    measured = pooled.values[second].float()[:, torch.tensor(table["feature"].to_numpy())]
    resampled = _resampled_auroc(measured, factors.truth[second][:, columns], n_resamples, seed)
    rows = []
    for factor in factors.kinds:
        own = (table["factor"] == factor).to_numpy()
        n_values, areas = int(own.sum()), table["auroc"].to_numpy()[own]
        low, high = _interval(resampled[:, own], level)
        n_found = int((areas >= found).sum())
        rows.append(
            {
                "features": pooled.name,
                "n_features": int(pooled.live.sum()),
                "factor": factor,
                "n_values": n_values,
                "n_left_out": len(factors.columns(factor)) - n_values,
                "auroc": areas.mean() if n_values else np.nan,
                "low": low,
                "high": high,
                "f1": table["f1"].to_numpy()[own].mean() if n_values else np.nan,
                "n_found": n_found,
                "percent_found": 100 * n_found / n_values if n_values else np.nan,
                "null_found": (null[:, own] >= found).sum(axis=1).mean(),
            }
        )
    return pd.DataFrame(rows)


def compare_features(
    pooled: Mapping[str, PooledFeatures],
    factors: Factors,
    *,
    min_images: int = MIN_IMAGES,
    seed: int = 0,
    found: float = FOUND,
) -> pd.DataFrame:
    """`factor_summary` of several kinds of features on the same images, one below the other, under the given names.

    Raises:
        ValueError: If there are no features; or as `factor_scores`.
    """
    if not pooled:
        raise ValueError("expected features to compare, got none")
    options: dict[str, Any] = {"min_images": min_images, "seed": seed, "found": found}
    tables = [factor_summary(replace(one, name=name), factors, **options) for name, one in pooled.items()]
    return pd.concat(tables, ignore_index=True)


def _checked(pooled: PooledFeatures, factors: Factors) -> int:
    if len(pooled) != len(factors):
        raise ValueError(
            f"expected the factors of the same images as the features, got {len(factors)} and {len(pooled)} images"
        )
    return len(pooled)


def _null_auroc(
    pooled: PooledFeatures, truth: Bool[Tensor, "image value"], n_permutations: int, seed: int
) -> np.ndarray:
    """The AUROC of each value's best feature, if truths belong to other images: [permutation value]."""
    first, second = halves(len(pooled), seed)
    chosen, measured = pooled.values[first].float(), pooled.values[second].float()
    areas = []
    for permutation in range(n_permutations):
        moved = permuted(truth, first, second, seed=seed + permutation)
        feature = auroc(chosen, moved[first]).argmax(dim=0)
        areas.append(_paired_auroc(measured[:, feature], moved[second]))
    return torch.stack(areas).numpy()


def _paired_auroc(values: Float[Tensor, "image chosen"], truth: Bool[Tensor, "image chosen"]) -> Tensor:
    """AUROC of each column for its own truth."""
    every = torch.ones(1, len(values), dtype=torch.float64)
    return _weighted_auroc(values, truth, every)[0]


def _resampled_auroc(values: Tensor, truth: Tensor, n_resamples: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(len(values), size=(n_resamples, len(values)))
    weights = torch.from_numpy(times_drawn(drawn, len(values)))
    chunks = [_weighted_auroc(values, truth, part) for part in weights.split(16)]
    return torch.cat(chunks).numpy()


def _interval(resampled: np.ndarray, level: float) -> tuple[float, float]:
    """Of the mean over values; resamples in which no value can be measured, or no values at all, do not count."""
    possible = resampled[~np.isnan(resampled).all(axis=1)]
    if not len(possible):
        return np.nan, np.nan
    low, high = np.quantile(np.nanmean(possible, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _weighted_auroc(
    values: Float[Tensor, "image chosen"], truth: Bool[Tensor, "image chosen"], weights: Float[Tensor, "resample image"]
) -> Float[Tensor, "resample chosen"]:
    """AUROC of each column for its own truth, with weighted images; NaN where a resample lacks one of the two kinds."""
    columns = values.T.contiguous()  # [chosen image]
    ordered, order = columns.sort(dim=1)
    below = torch.searchsorted(ordered, ordered)
    up_to = torch.searchsorted(ordered, ordered, right=True)
    positive = truth.T.gather(1, order).double()
    weight = weights[:, order]  # [resample chosen image]
    negatives = torch.nn.functional.pad((weight * (1 - positive)).cumsum(dim=2), (1, 0))
    shape = negatives.shape[:1]
    lower = negatives.gather(2, below.expand(*shape, -1, -1))
    ties = negatives.gather(2, up_to.expand(*shape, -1, -1)) - lower
    positives = weight * positive
    pairs = positives.sum(dim=2) * negatives[:, :, -1]
    return (positives * (lower + ties / 2)).sum(dim=2) / pairs.where(pairs > 0, torch.nan)
