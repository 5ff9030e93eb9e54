"""Whether two dictionaries, trained from different seeds, found the same directions."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Stability", "decoder_stability"]


@dataclass(frozen=True)
class Stability:
    """How similar the directions of two dictionaries are.

    Attributes:
        max_cosine: For each direction of the first, the largest cosine with any direction of the second.
        matched_cosine: Its cosine with the direction that it is matched to, each used once; NaN without a match.
        match: The index of that direction in the second dictionary; -1 without one.
    """

    max_cosine: Float[Tensor, "latent"]
    matched_cosine: Float[Tensor, "latent"]
    match: Int[Tensor, "latent"]

    @property
    def mean_max_cosine(self) -> float:
        """The mean over directions of the largest cosine (MMCS; Sharkey et al. 2022)."""
        return float(self.max_cosine.mean())

    @property
    def mean_matched_cosine(self) -> float:
        """The mean cosine of matched directions."""
        return float(self.matched_cosine.nanmean())

    def share_above(self, cosine: float | int) -> float:
        """The share of matched directions whose cosine is above a value."""
        known = self.matched_cosine[self.matched_cosine.isfinite()]
        return float((known > cosine).double().mean())


def decoder_stability(
    first: Float[Tensor, "latent d_out"],
    second: Float[Tensor, "other_latent d_out"],
    *,
    first_live: Bool[Tensor, "latent"] | None = None,
    second_live: Bool[Tensor, "other_latent"] | None = None,
) -> Stability:
    """Compare the directions of two dictionaries by their cosines, matched by the Hungarian algorithm.

    In a space of few dimensions even random directions lie near each other, all the more the more there are: compare
    with two random dictionaries of the same sizes.

    Args:
        first: Rows of one decoder.
        second: Rows of another, of the same width.
        first_live: The latents to compare; dead ones keep the random direction that they started from.
        second_live: The same for the second.

    Raises:
        ValueError: If widths differ, or there is no direction.

    >>> stability = decoder_stability(torch.eye(3), torch.eye(3)[[1, 0, 2]])
    >>> stability.mean_matched_cosine, stability.match.tolist()
    (1.0, [1, 0, 2])
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"expected directions of one width, got {first.shape[1]} and {second.shape[1]}")
    kept = [
        torch.arange(len(rows)) if live is None else live.cpu().nonzero()[:, 0]
        for rows, live in ((first, first_live), (second, second_live))
    ]
    if not all(len(index) for index in kept):
        raise ValueError("expected at least one direction of each dictionary, got none: are all latents dead?")
    a, b = (
        F.normalize(rows.detach().cpu().double()[index], dim=-1)
        for rows, index in zip((first, second), kept, strict=True)
    )
    cosines = a @ b.T
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    at, to = torch.from_numpy(rows).long(), torch.from_numpy(columns).long()
    matched = torch.full((len(a),), torch.nan, dtype=torch.float64)
    matched[at] = cosines[at, to]
    match = torch.full((len(a),), -1)
    match[at] = kept[1][to]
    return Stability(cosines.amax(dim=1), matched, match)
