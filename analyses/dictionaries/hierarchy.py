"""Feature splitting and absorption along a taxonomy (Chanin et al. 2024, "A is for Absorption")."""

from collections.abc import Sequence
from typing import cast

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from analyses.dictionaries.factors import Factors
from analyses.dictionaries.pooling import PooledFeatures, halves
from analyses.dictionaries.probing import fitted_probe, probe_ranking, sparse_probes
from analyses.dictionaries.ranking import best_f1

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
    into the smallest k from which on one more latent no longer raises F1, on images that the probe was not fitted to,
    by more than `gain`. A value with one latent of its own has k = 1. A value that no latent predicts also stops at
    k = 1: look at its F1.

    Args:
        pooled: The latents.
        factors: The factors of the same images; splitting along the taxonomy concerns group, subgroup and class.
        max_k: The most latents that are tried.
        gain: The least rise of F1.
        seed: Seed of the halves.

    Returns:
        One row per value: `features`, `factor`, `factor_value`, `n_latents`, `f1` (with one latent), `split_f1` (with
        all of them), `latents`.

    Raises:
        ValueError: As `sparse_probes`.

    >>> labels = torch.tensor([0, 1, 2, 3]).repeat(8)
    >>> from analyses.dictionaries.factors import label_factors
    >>> values = (labels[:, None] == torch.tensor([0, 1])).half()  # one latent for each kind of animal
    >>> kinds = [("animal",), ("animal",), ("food",), ("food",)]
    >>> factors = label_factors(labels, ["cat", "dog", "fig", "pie"], kinds)
    >>> table = splitting(PooledFeatures("two", values, labels, labels), factors, max_k=2)
    >>> table.set_index("factor_value")["n_latents"].to_dict()["animal"]
    2
    """
    most = min(max_k, pooled.values.shape[1])
    probes = sparse_probes(pooled, factors, range(1, most + 1), seed=seed)
    rows = []
    for names, group in probes.groupby(["factor", "factor_value"], sort=False):
        factor, value = cast("tuple[str, str]", names)
        f1 = dict(zip(group["k"].tolist(), group["f1"].tolist(), strict=True))
        chosen = dict(zip(group["k"].tolist(), group["chosen"].tolist(), strict=True))
        k = next((k for k in range(1, most) if f1[k + 1] - f1[k] <= gain), most)
        rows.append(
            {
                "features": pooled.name,
                "factor": factor,
                "factor_value": value,
                "n_latents": k,
                "f1": f1[1],
                "split_f1": f1[k],
                "latents": chosen[k],
            }
        )
    columns = ["features", "factor", "factor_value", "n_latents", "f1", "split_f1", "latents"]
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

    Definition, after Chanin et al. (2024). A parent is a node with nodes or classes below it; its main latents are
    those that it is split into (`splitting`). On images that nothing was chosen on, an image of the parent is

    - *counted* if a probe on many latents (the 50 best) finds the parent in it,
    - *missed* if, besides, a probe on the main latents does not find it,
    - *absorbed* if, besides, the image shows a child whose own best latent (F1 at least 0.5, not a main latent) is
      above its threshold there and, given `directions`, has a decoder direction whose cosine with the mean direction
      of the main latents is above 0.025.

    Chanin et al. know no children and ask for one latent that alone explains the probe's answer; here the taxonomy
    names the candidates. Absorption needs only latents that are silent when they should not be; a parent that nothing
    represents (`f1` near chance) has misses without being absorbed.

    Args:
        pooled: The latents.
        factors: The factors of the same images, with parents.
        directions: The decoder direction of each latent; without them, the cosine is not required.
        max_k: As for `splitting`.
        gain: As there.
        seed: Seed of the halves.

    Returns:
        One row per parent: `features`, `factor`, `factor_value`, `n_counted`, `n_latents`, `f1` (of the main latents),
        `percent_missed`, `percent_absorbed` (of the counted images), `absorbed_by` (names of the children).

    Raises:
        ValueError: If no factor value has children, or as `sparse_probes`.
    """
    parents = sorted({parent for parent in factors.parents if parent >= 0})
    if not parents:
        raise ValueError("expected factors with a taxonomy, as scene_factors or label_factors(…, taxonomy) make them")
    if directions is not None and len(directions) != pooled.values.shape[1]:
        raise ValueError(f"expected {pooled.values.shape[1]} directions, one for each latent, got {len(directions)}")
    own = Factors(tuple(factors.names[column] for column in parents), factors.truth[:, parents], (-1,) * len(parents))
    split = splitting(pooled, own, max_k=max_k, gain=gain, seed=seed).set_index(["factor", "factor_value"])
    fitted_on, measured_on = halves(len(pooled), seed)
    train, test = pooled.values[fitted_on].float(), pooled.values[measured_on].float()
    f1, thresholds = best_f1(train, factors.truth[fitted_on])
    ordered = probe_ranking(train, own.truth[fitted_on]).argsort(dim=0, descending=True, stable=True)
    rows = []
    for place, column in enumerate(parents):
        if factors.names[column] not in split.index:
            continue
        row = split.loc[factors.names[column]]  # pyright: ignore[reportArgumentType]
        main = torch.tensor(row["latents"])
        truth = factors.truth[fitted_on, column]
        dense = fitted_probe(train[:, ordered[:_DENSE_K, place]], truth, test[:, ordered[:_DENSE_K, place]])
        counted = factors.truth[measured_on, column] & dense
        missed = counted & ~fitted_probe(train[:, main], truth, test[:, main])
        children = [child for child in range(len(factors.names)) if _is_below(child, column, factors.parents)]
        takes_over = _takes_over(test, factors.truth[measured_on], children, f1, thresholds, main, directions)
        absorbed = missed[:, None] & takes_over
        n_counted = int(counted.sum())
        rows.append(
            {
                "features": pooled.name,
                "factor": factors.names[column][0],
                "factor_value": factors.names[column][1],
                "n_counted": n_counted,
                "n_latents": int(row["n_latents"]),
                "f1": float(row["split_f1"]),
                "percent_missed": 100 * int(missed.sum()) / max(1, n_counted),
                "percent_absorbed": 100 * int(absorbed.any(dim=1).sum()) / max(1, n_counted),
                "absorbed_by": tuple(factors.names[children[c]][1] for c in absorbed.any(dim=0).nonzero()[:, 0]),
            }
        )
    columns = [
        "features", "factor", "factor_value", "n_counted", "n_latents", "f1", "percent_missed", "percent_absorbed",
        "absorbed_by",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _is_below(column: int, ancestor: int, parents: Sequence[int]) -> bool:
    while column >= 0:
        column = parents[column]
        if column == ancestor:
            return True
    return False


def _takes_over(
    values: Tensor,
    truth: Tensor,
    children: Sequence[int],
    f1: Tensor,
    thresholds: Tensor,
    main: Tensor,
    directions: Tensor | None,
) -> Tensor:
    """Whether an image shows a child and the child's own latent, aligned with the parent's, fires: [image child]."""
    best, latent = f1[:, children].max(dim=0)
    able = (best >= _CHILD_F1) & ~torch.isin(latent, main)
    if directions is not None:
        unit = F.normalize(directions.float().cpu(), dim=-1)
        parent = F.normalize(unit[main].mean(dim=0), dim=-1)
        able = able & (unit[latent] @ parent > DIRECTION_COSINE)
    at = thresholds[latent, torch.tensor(children)]
    return truth[:, children] & (values[:, latent] >= at) & able
