"""Probes beside class-space projection: accuracy and rank of both on the same images, and what each of them costs."""

import time
from collections.abc import Sequence
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
    """How many classes a probe puts above the correct one, each where it was fitted."""
    return torch.stack(
        [
            class_ranks(probe[layer].class_logits(features), test.labels.expand(features.shape[:-1]))
            for layer, features in enumerate(test.features)
        ]
    )


@torch.no_grad()
def projection_ranks(model: HookedViT, test: ProbeFeatures) -> Int[Tensor, "layer position image"]:
    """The same of the projection by the model's own class embeddings, which need no fitting."""
    return torch.stack(
        [
            class_ranks(model.class_logits(features), test.labels.expand(features.shape[:-1]))
            for features in test.features
        ]
    )


def compare_with_projection(
    model: HookedViT,
    train: ProbeFeatures,
    test: ProbeFeatures,
    shots: Sequence[int] = (1, 5, 10),
    *,
    alpha: float | int = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Fit probes to k images of each class, for several k, and hold them beside the projection.

    Args:
        model: Whose class embeddings the projection uses.
        train: What probes are fitted to, from `probe_features`; `max(shots)` images of each class at least.
        test: What both are asked about.
        shots: How many images of each class.
        alpha: As for `fit_ridge_probe`.
        seed: Of the shuffled labels and the bootstrap.

    Returns:
        A row for each `method` (`projection`, `probe`, and `probe_null`, fitted to shuffled labels), `shots` (0:
        nothing was fitted), `layer`, `token_type` and `metric`, `accuracy` in percent or `identifiability`
        (`1 - rank / n_classes`): `value`, mean over positions and images, `low` and `high`, a bootstrap interval over
        images, `n_images`; and what the method took: `seconds` to fit and to ask all probes, `megabytes` of features
        and weights to keep.

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
        some = train.shots(k)
        for method, one in (("probe", some), ("probe_null", some.shuffled(seed))):
            start = time.perf_counter()
            probe = fit_ridge_probe(one.features, one.labels, model.cfg.n_classes, alpha)
            ranks = probe_ranks(probe, test)
            add(ranks, method, k, time.perf_counter() - start, one.n_bytes + probe.n_bytes)
    return pd.concat(tables, ignore_index=True)


def _rows(
    ranks: Int[Tensor, "layer position image"], token_types: Sequence[str], n_classes: int, seed: int
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    values: dict[str, Float[Tensor, "layer position image"]] = {
        "accuracy": 100.0 * (ranks == 0),
        "identifiability": 1 - ranks / n_classes,
    }
    for token_type in dict.fromkeys(token_types):
        positions = [place for place, one in enumerate(token_types) if one == token_type]
        for metric, of in values.items():
            of_images = of[:, positions].mean(dim=1).T.cpu().numpy()
            interval = bootstrap_interval(of_images, seed=seed)
            for layer in range(len(ranks)):
                numbers = {"value": interval.estimate, "low": interval.low, "high": interval.high}
                at = {"layer": layer, "token_type": token_type, "metric": metric, "n_images": len(of_images)}
                rows.append({**at, **{name: float(number[layer]) for name, number in numbers.items()}})
    return pd.DataFrame(rows)
