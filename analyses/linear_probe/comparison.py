"""Probes compared with class-space projection: accuracy and rank on the same images, and the cost of each."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.linear_probe.features import ProbeFeatures
from analyses.linear_probe.ridge import RidgeProbe, fit_ridge_probe
from analyses.projection import class_ranks
from analyses.statistics.intervals import bootstrap_interval
from hooked_vit import HookedViT

__all__ = ["compare_with_projection", "probe_ranks", "projection_ranks"]


@torch.no_grad()
def probe_ranks(probe: RidgeProbe, test: ProbeFeatures) -> Int[Tensor, "layer position image"]:
    """How many classes the probes rank above the correct one; each probe reads the layer and position it was fitted to.

    Args:
        probe: Probes with axes [layer position].
        test: The features and labels to score.
    """
    return _ranks((probe[layer].class_logits(features) for layer, features in enumerate(test.features)), test)


@torch.no_grad()
def projection_ranks(model: HookedViT, test: ProbeFeatures) -> Int[Tensor, "layer position image"]:
    """How many classes the projection by the model's own class embeddings ranks above the correct one: no fitting."""
    return _ranks((model.class_logits(features) for features in test.features), test)


def _ranks(
    logits_by_layer: Iterable[Float[Tensor, "position image n_classes"]], test: ProbeFeatures
) -> Int[Tensor, "layer position image"]:
    return torch.stack([class_ranks(logits, test.labels.expand(logits.shape[:-1])) for logits in logits_by_layer])


def compare_with_projection(
    model: HookedViT,
    train: ProbeFeatures,
    test: ProbeFeatures,
    shots: Sequence[int] = (1, 5, 10),
    *,
    alpha: float | int = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Fit probes to k images per class, for several k, and compare them with the projection.

    Args:
        model: The model whose class embeddings the projection uses.
        train: Features that probes are fitted to, from `probe_features`: at least `max(shots)` images per class.
        test: Features that both methods classify.
        shots: Numbers of images per class.
        alpha: As for `fit_ridge_probe`.
        seed: Seed of the shuffled labels and the bootstrap.

    Returns:
        A row for each `method` (`projection`, `probe`, and `probe_null`, fitted to shuffled labels), `shots` (0:
        nothing was fitted), `layer`, `token_type` and `metric`, `accuracy` in percent or `identifiability`
        (`1 - rank / n_classes`): `value`, mean over positions and images, `low` and `high`, a bootstrap interval over
        images, `n_images`; and the method's cost: `seconds` to fit and apply all probes, `megabytes` of features and
        weights to store.

    Raises:
        ValueError: If a class has fewer images than shots.
    """
    tables = []

    def add(ranks: Tensor, method: str, k: int, seconds: float, n_bytes: int) -> None:
        cost = {"seconds": seconds, "megabytes": n_bytes / 1e6}
        tables.append(_rows(ranks, test.token_types, model.cfg.n_classes, seed).assign(method=method, shots=k, **cost))

    start = time.perf_counter()
    ranks = projection_ranks(model, test)
    add(ranks, "projection", 0, time.perf_counter() - start, 0)
    for k in shots:
        chosen = train.shots(k)
        for method, samples in (("probe", chosen), ("probe_null", chosen.shuffled(seed))):
            start = time.perf_counter()
            probe = fit_ridge_probe(samples.features, samples.labels, model.cfg.n_classes, alpha)
            ranks = probe_ranks(probe, test)
            add(ranks, method, k, time.perf_counter() - start, samples.n_bytes + probe.n_bytes)
    return pd.concat(tables, ignore_index=True)


def _rows(
    ranks: Int[Tensor, "layer position image"], token_types: Sequence[str], n_classes: int, seed: int
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    metrics: dict[str, Float[Tensor, "layer position image"]] = {
        "accuracy": 100.0 * (ranks == 0),
        "identifiability": 1 - ranks / n_classes,
    }
    for token_type in dict.fromkeys(token_types):
        positions = [position for position, found in enumerate(token_types) if found == token_type]
        for metric, values in metrics.items():
            image_means = values[:, positions].mean(dim=1).T.cpu().numpy()
            interval = bootstrap_interval(image_means, seed=seed)
            for layer in range(len(ranks)):
                numbers = {"value": interval.estimate, "low": interval.low, "high": interval.high}
                key = {"layer": layer, "token_type": token_type, "metric": metric, "n_images": len(image_means)}
                rows.append({**key, **{name: float(number[layer]) for name, number in numbers.items()}})
    return pd.DataFrame(rows)
