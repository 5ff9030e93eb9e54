"""k-sparse probing: how well k features together predict a factor value (Gurnee et al. 2023), by scikit-learn."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.dictionaries.scores.factors import Factors
from analyses.dictionaries.scores.pooling import PooledFeatures, halves
from analyses.dictionaries.scores.ranking import f1_at

__all__ = ["fitted_probe", "probe_f1", "probe_ranking", "sparse_probes"]


def probe_ranking(
    values: Float[Tensor, "image feature"], truth: Bool[Tensor, "image value"]
) -> Float[Tensor, "feature value"]:
    """How far each feature's mean moves with each value, in its own standard deviations; constant features 0.

    `|mean(with) - mean(without)| / std`: the k features with the largest go into a k-sparse probe.

    >>> probe_ranking(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[False], [True]]))
    tensor([[2.],
            [0.]], dtype=torch.float64)
    """
    members, wide = truth.double(), values.double()
    n_with = members.sum(dim=0)
    total = wide.sum(dim=0)[:, None]
    sums = wide.T @ members
    difference = sums / n_with - (total - sums) / (len(values) - n_with)
    deviation = wide.std(dim=0, correction=0)[:, None]
    return (difference.abs() / deviation.where(deviation > 0, torch.inf)).nan_to_num(0)


def sparse_probes(
    pooled: PooledFeatures, factors: Factors, ks: Sequence[int] = (1, 2, 5), *, seed: int = 0
) -> pd.DataFrame:
    """F1 of logistic regression on the k best features of each factor value, on images that it was not fitted to.

    Features are chosen by `probe_ranking` and the probe is fitted (scikit-learn, balanced class weights, standardised
    features) on one half of the images, F1 is that of the other half. If one latent is the factor, k = 1 is as good as
    k = 5.

    Args:
        pooled: The features.
        factors: The factors of the same images; `factors.of_kinds("group", "subgroup")` are quicker than all.
        ks: Numbers of features.
        seed: Seed of the halves.

    Returns:
        One row per value and k: `features`, `factor`, `factor_value`, `k`, `f1`, `chosen` (the features, best first).

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If the images differ in number, or a k is not from 1 to the number of features.

    >>> labels = torch.tensor([0, 1]).repeat(8)
    >>> from analyses.dictionaries.scores.factors import label_factors
    >>> pooled = PooledFeatures("one", labels[:, None].half(), labels, labels)
    >>> sparse_probes(pooled, label_factors(labels, ["cat", "dog"]), ks=[1])["f1"].tolist()
    [1.0, 1.0]
    """
    n_features = pooled.values.shape[1]
    if len(pooled) != len(factors):
        raise ValueError(f"expected factors of the same images, got {len(factors)} and {len(pooled)} images")
    if not ks or not all(1 <= k <= n_features for k in ks):
        raise ValueError(f"expected numbers of features from 1 to {n_features}, got {list(ks)}")
    fitted_on, measured_on = halves(len(pooled), seed)
    train, test = pooled.values[fitted_on].float(), pooled.values[measured_on].float()
    ranking = probe_ranking(train, factors.truth[fitted_on])
    ordered = ranking.argsort(dim=0, descending=True, stable=True)[: max(ks)]
    rows = []
    # scikit-learn fits one binary target at a time
    for column, (factor, value) in enumerate(factors.names):
        truth = factors.truth[fitted_on, column], factors.truth[measured_on, column]
        if not all(0 < int(half.sum()) < len(half) for half in truth):
            continue
        for k in ks:
            chosen = ordered[:k, column]
            predicted = fitted_probe(train[:, chosen], truth[0], test[:, chosen])
            rows.append(
                {
                    "features": pooled.name,
                    "factor": factor,
                    "factor_value": value,
                    "k": k,
                    "f1": probe_f1(predicted, truth[1]),
                    "chosen": tuple(chosen.tolist()),
                }
            )
    return pd.DataFrame(rows, columns=["features", "factor", "factor_value", "k", "f1", "chosen"])


def fitted_probe(
    train: Float[Tensor, "image feature"], truth: Bool[Tensor, "image"], test: Float[Tensor, "other feature"]
) -> Bool[Tensor, "other"]:
    """The predictions of a balanced logistic regression on standardised features.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError("probes need scikit-learn: pip install 'hooked-vit[probes]'") from error
    mean, deviation = train.mean(dim=0), train.std(dim=0, correction=0)
    scale = torch.where(deviation > 0, deviation, 1)
    probe = LogisticRegression(class_weight="balanced", max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(((train - mean) / scale).numpy(), truth.numpy())
    return torch.from_numpy(np.asarray(probe.predict(((test - mean) / scale).numpy())))


def probe_f1(predicted: Bool[Tensor, "image"], truth: Bool[Tensor, "image"]) -> float:
    """F1 of a probe's predictions.

    >>> probe_f1(torch.tensor([True, True, False]), torch.tensor([True, False, False])) == 2 / 3
    True
    """
    return float(f1_at(predicted[:, None].float(), torch.ones(1), truth[:, None]))
