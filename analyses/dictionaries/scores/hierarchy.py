"""Feature splitting and absorption along a taxonomy (Chanin et al. 2024, "A is for Absorption")."""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from analyses.dictionaries.scores.factors import Factors
from analyses.dictionaries.scores.own_latents import OwnLatents
from analyses.dictionaries.scores.pooling import PooledFeatures
from analyses.dictionaries.scores.probing import probe_f1
from analyses.dictionaries.scores.ranking import best_f1

__all__ = ["absorption", "splitting"]

SPLIT_GAIN = 0.03
"""Chanin et al.'s threshold: another latent belongs to the split if it raises the probe's F1 by more."""
DIRECTION_COSINE = 0.025
"""Theirs, too: a latent carries the parent's direction if its own has at least this cosine with it."""
_CHILD_F1 = 0.5
_DENSE_K = 50


def splitting(
    pooled: PooledFeatures, factors: Factors, *, max_k: int = 5, gain: float = SPLIT_GAIN, seed: int = 0
) -> pd.DataFrame:
    """Into how many latents each factor value is split.

    Definition (Chanin et al. 2024): a k-sparse probe predicts the value from its k best latents. The value is split
    into the smallest k from which on one more latent no longer raises F1 by more than `gain`. That k is chosen within
    one half of the images: probes are fitted on one part of it, and their F1 is that of the other part. The F1 of the
    table is of the other half of the images, which nothing was chosen on. A value with one latent of its own has
    k = 1. A value that no latent predicts also stops at k = 1: compare its F1 with `chance_f1`.

    Args:
        pooled: The latents.
        factors: The factors of the same images; splitting along the taxonomy concerns group, subgroup and class.
        max_k: The most latents that are tried.
        gain: The least rise of F1.
        seed: Seed of the halves.

    Returns:
        One row per value that each of the three parts has images with and without: `features`, `factor`,
        `factor_value`, `n_latents`, `f1` (with one latent), `split_f1` (with all of them), `chance_f1` (of predicting
        the value for every image), `latents`.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If the images differ in number, there are fewer than four, or `max_k` is below 1.

    >>> labels = torch.tensor([0, 1, 2, 3]).repeat(8)
    >>> from analyses.dictionaries.scores.factors import label_factors
    >>> values = (labels[:, None] == torch.tensor([0, 1])).half()  # one latent for each kind of animal
    >>> kinds = [("animal",), ("animal",), ("food",), ("food",)]
    >>> factors = label_factors(labels, ["cat", "dog", "fig", "pie"], kinds)
    >>> table = splitting(PooledFeatures("two", values, labels, labels), factors, max_k=2)
    >>> table.set_index("factor_value")["n_latents"].to_dict()["animal"]
    2
    """
    own, rows = OwnLatents(pooled, factors, max_k, gain, seed), []
    for column, (factor, value) in enumerate(factors.names):
        if not own.measurable(column):
            continue
        latents, held_out = own.of(column), own.held_out[:, column]
        rows.append(
            {
                "features": pooled.name,
                "factor": factor,
                "factor_value": value,
                "n_latents": len(latents),
                "f1": probe_f1(own.found(column, latents[:1]), held_out),
                "split_f1": probe_f1(own.found(column, latents), held_out),
                "chance_f1": own.chance_f1(column),
                "latents": tuple(latents.tolist()),
            }
        )
    columns = ["features", "factor", "factor_value", "n_latents", "f1", "split_f1", "chance_f1", "latents"]
    return pd.DataFrame(rows, columns=columns)


def absorption(
    pooled: PooledFeatures,
    factors: Factors,
    directions: Float[Tensor, "feature d_out"] | None = None,
    *,
    max_k: int = 5,
    gain: float = SPLIT_GAIN,
    seed: int = 0,
) -> pd.DataFrame:
    """How often the latents of a node of the taxonomy stay silent, and a latent of one of its children takes over.

    Definition, after Chanin et al. (2024). A parent is a node with nodes or classes below it, its children. The best
    latent of a child is the child's own if its F1 for the child is at least 0.5 and larger than its F1 for the parent.
    The parent's main latents are those that it is split into (`splitting`), among latents that are larger with the
    parent than without and are not a child's own. On images that nothing was chosen on, an image of the parent is

    - *counted* if a probe on many latents (the 50 best, children's included) finds the parent in it,
    - *missed* if, besides, a probe on the main latents does not find it,
    - *absorbed* if, besides, the image shows a child whose own latent is above its threshold there and, given
      `directions`, has a decoder direction whose cosine with the mean direction of the main latents is above 0.025.

    Chanin et al. know no children and ask for one latent that alone explains the probe's answer; here the taxonomy
    names the candidates. Absorption presupposes that the parent has a latent: where `f1` is not above `chance_f1`, its
    main latents are arbitrary, and what looks absorbed is only represented by the children.

    Args:
        pooled: The latents.
        factors: The factors of the same images, with parents.
        directions: The decoder direction of each latent; without them, the cosine is not required.
        max_k: As for `splitting`.
        gain: As there.
        seed: Seed of the halves.

    Returns:
        One row per parent that has the images that `splitting` needs, and latents that can be main: `features`,
        `factor`, `factor_value`, `n_counted`, `n_latents`, `f1` (of the main latents), `chance_f1`, `percent_missed`,
        `percent_absorbed` (of the counted images), `absorbed_by` (names of the children).

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If no factor value has children, there is not one direction for each latent, or as `splitting`.
    """
    parents = sorted({parent for parent in factors.parents if parent >= 0})
    if not parents:
        raise ValueError("expected factors with a taxonomy, as scene_factors or label_factors(…, taxonomy) make them")
    if directions is not None and len(directions) != pooled.values.shape[1]:
        raise ValueError(f"expected {pooled.values.shape[1]} directions, one for each latent, got {len(directions)}")
    own, rows = OwnLatents(pooled, factors, max_k, gain, seed), []
    f1, thresholds = best_f1(own.train, own.truth)
    for column in parents:
        children = [child for child in range(len(factors.names)) if _is_below(child, column, factors.parents)]
        best, latent = f1[:, children].max(dim=0)
        owns = (best >= _CHILD_F1) & (best > f1[latent, column])
        candidates = own.larger_with(column).index_fill(0, latent[owns], False)
        if not own.measurable(column) or not candidates.any():
            continue
        main, held_out = own.of(column, candidates), own.held_out[:, column]
        found = own.found(column, main)
        counted = held_out & own.found(column, own.best(column, _DENSE_K))
        missed = counted & ~found
        fires = own.test[:, latent] >= thresholds[latent, torch.tensor(children)]
        absorbed = missed[:, None] & own.held_out[:, children] & fires & owns & _aligned(directions, latent, main)
        n_counted = int(counted.sum())
        rows.append(
            {
                "features": pooled.name,
                "factor": factors.names[column][0],
                "factor_value": factors.names[column][1],
                "n_counted": n_counted,
                "n_latents": len(main),
                "f1": probe_f1(found, held_out),
                "chance_f1": own.chance_f1(column),
                "percent_missed": 100 * int(missed.sum()) / max(1, n_counted),
                "percent_absorbed": 100 * int(absorbed.any(dim=1).sum()) / max(1, n_counted),
                "absorbed_by": tuple(factors.names[children[c]][1] for c in absorbed.any(dim=0).nonzero()[:, 0]),
            }
        )
    columns = [
        "features", "factor", "factor_value", "n_counted", "n_latents", "f1", "chance_f1", "percent_missed",
        "percent_absorbed", "absorbed_by",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _aligned(directions: Tensor | None, latent: Int[Tensor, "child"], main: Int[Tensor, "k"]) -> Bool[Tensor, "child"]:
    """Whether latents carry the mean direction of the main ones; without directions, they do."""
    if directions is None:
        return torch.ones(len(latent), dtype=torch.bool)
    unit = F.normalize(directions.float().cpu(), dim=-1)
    return unit[latent] @ F.normalize(unit[main].mean(dim=0), dim=-1) > DIRECTION_COSINE


def _is_below(column: int, ancestor: int, parents: Sequence[int]) -> bool:
    while column >= 0:
        column = parents[column]
        if column == ancestor:
            return True
    return False
