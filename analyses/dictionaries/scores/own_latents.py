"""The latents that a factor value is split into: how many is chosen within one half of the images."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.dictionaries.scores.factors import Factors
from analyses.dictionaries.scores.pooling import PooledFeatures, halves
from analyses.dictionaries.scores.probing import fitted_probe, probe_f1, probe_ranking

__all__ = ["OwnLatents"]


class OwnLatents:
    """The latents of each factor value, chosen and fitted on one half of the images, and its images in the other half.

    How many latents a value has is chosen inside the first half: probes are fitted on one part of it, and compared on
    the other part.

    Args:
        pooled: The latents.
        factors: The factors of the same images.
        max_k: The most latents of a value.
        gain: A latent is added if it raises F1 by more.
        seed: Seed of the halves.

    Raises:
        ValueError: If the images differ in number, there are fewer than four, or `max_k` is below 1.
    """

    def __init__(self, pooled: PooledFeatures, factors: Factors, max_k: int, gain: float, seed: int):
        if len(pooled) != len(factors):
            raise ValueError(f"expected factors of the same images, got {len(factors)} and {len(pooled)} images")
        if len(pooled) < 4:
            raise ValueError(f"expected at least four images, to fit on, choose on and measure on, got {len(pooled)}")
        if max_k < 1:
            raise ValueError(f"max_k must be at least 1, got {max_k}")
        self._max_k, self._gain = max_k, gain
        first, second = halves(len(pooled), seed)
        self.train, self.test = pooled.values[first].float(), pooled.values[second].float()
        self.truth, self.held_out = factors.truth[first], factors.truth[second]
        self._fitted_on, self._chosen_on = halves(len(self.train), seed)
        self._ranking = probe_ranking(self.train, self.truth)
        self._first_ranking = probe_ranking(self.train[self._fitted_on], self.truth[self._fitted_on])

    def measurable(self, column: int) -> bool:
        """Whether each part of the images has some with the value and some without."""
        parts = (self.truth[self._fitted_on, column], self.truth[self._chosen_on, column], self.held_out[:, column])
        return all(bool(part.any()) and not bool(part.all()) for part in parts)

    def larger_with(self, column: int) -> Bool[Tensor, "feature"]:
        """Which latents have a larger mean in images with the value than in those without."""
        truth = self.truth[:, column]
        return self.train[truth].mean(dim=0) > self.train[~truth].mean(dim=0)

    def of(self, column: int, candidates: Bool[Tensor, "feature"] | None = None) -> Int[Tensor, "k"]:
        """The latents that a value is split into, best first; by default of all, none if there are no candidates."""
        order = _best(self._first_ranking[:, column], self._max_k, candidates)
        fitted_on, chosen_on = self._fitted_on, self._chosen_on
        k, best = 0, -torch.inf
        while k < len(order):
            fitted, chosen = (self.train[part][:, order[: k + 1]] for part in (fitted_on, chosen_on))
            predicted = fitted_probe(fitted, self.truth[fitted_on, column], chosen)
            f1 = probe_f1(predicted, self.truth[chosen_on, column])
            if f1 - best <= self._gain:
                break
            k, best = k + 1, f1
        return self.best(column, k, candidates)

    def best(self, column: int, k: int, candidates: Bool[Tensor, "feature"] | None = None) -> Int[Tensor, "k"]:
        """The k latents whose means move most with a value."""
        return _best(self._ranking[:, column], k, candidates)

    def found(self, column: int, latents: Int[Tensor, "k"]) -> Bool[Tensor, "held_out"]:
        """Where a probe on some latents finds a value in the half that nothing was chosen on."""
        return fitted_probe(self.train[:, latents], self.truth[:, column], self.test[:, latents])

    def chance_f1(self, column: int) -> float:
        """F1 of predicting the value for every image of that half."""
        n_with = int(self.held_out[:, column].sum())
        return 2 * n_with / (n_with + len(self.held_out))


def _best(ranking: Float[Tensor, "feature"], k: int, candidates: Bool[Tensor, "feature"] | None) -> Int[Tensor, "k"]:
    if candidates is not None:
        ranking, k = ranking.where(candidates, -torch.inf), min(k, int(candidates.sum()))
    return ranking.argsort(descending=True, stable=True)[:k]
