"""Which tokens are merged: ToMe's bipartite soft matching (Bolya et al. 2023), and the patches of each token."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = ["TokenGroups", "bipartite_matching"]


@dataclass(frozen=True)
class TokenGroups:
    """A batch in which some patches share a token.

    Attributes:
        token_of_patch: The token of each patch of the image, prefix tokens included in the count.
        size: How many patches each token stands for; 1 for prefix tokens.
    """

    token_of_patch: Int[Tensor, "batch patch"]
    size: Float[Tensor, "batch token"]

    @classmethod
    def single(cls, n_images: int, n_prefix: int, n_patches: int, like: Tensor) -> "TokenGroups":
        """Every patch has a token of its own.

        >>> TokenGroups.single(1, 1, 3, torch.zeros(0)).token_of_patch
        tensor([[1, 2, 3]])
        """
        token = n_prefix + torch.arange(n_patches, device=like.device)
        return cls(token.expand(n_images, -1), like.new_ones(n_images, n_prefix + n_patches))

    def merge(
        self, residual: Float[Tensor, "batch token d_model"], target: Int[Tensor, "batch token"], n_after: int
    ) -> tuple[Float[Tensor, "batch merged d_model"], "TokenGroups"]:
        """Tokens with the same target become one: the mean over the patches that they stand for.

        Args:
            residual: A stream with these tokens.
            target: The token after merging of each token, from 0 to `n_after - 1`.
            n_after: How many tokens there are afterwards.
        """
        size = self.size.new_zeros(len(target), n_after).scatter_add_(1, target, self.size)
        summed = residual.new_zeros(len(target), n_after, residual.shape[2])
        summed.scatter_add_(1, target[..., None].expand_as(residual), residual * self.size[..., None])
        return summed / size[..., None], TokenGroups(target.gather(1, self.token_of_patch), size)

    def unmerge(
        self, residual: Float[Tensor, "batch token d_model"], n_prefix: int
    ) -> Float[Tensor, "batch all d_model"]:
        """The stream with a token for every patch again: copies of the token that stands for it."""
        prefix = torch.arange(n_prefix, device=residual.device).expand(len(residual), -1)
        index = torch.cat([prefix, self.token_of_patch], dim=1)
        return residual.gather(1, index[..., None].expand(-1, -1, residual.shape[2]))


def bipartite_matching(
    metric: Float[Tensor, "batch token d_head"], r: int, n_prefix: int = 1
) -> tuple[Int[Tensor, "batch token"], int]:
    """ToMe's bipartite soft matching: merge the r most similar pairs (Bolya et al. 2023, section 3.2).

    Tokens are divided by turns into A and B. Each token of A is joined to the token of B whose metric has the largest
    cosine with its own; the r joined pairs with the largest cosines merge. Prefix tokens take no part. At most half of
    the patches can merge at a time. With one CLS token or none, tokens and their order are those of the published code.

    Args:
        metric: What is compared: the mean over heads of the keys.
        r: How many tokens disappear.
        n_prefix: How many tokens before the patches.

    Returns:
        The place of each token after merging, and how many tokens there are then.

    Raises:
        ValueError: If r is negative.

    >>> metric = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.1]]])
    >>> bipartite_matching(metric, 1)  # CLS; then B, A, B, A: the first A is like the second B
    (tensor([[0, 2, 3, 3, 1]]), 4)
    """
    if r < 0:
        raise ValueError(f"r is how many tokens disappear, at least 0, got {r}")
    n_images, n_tokens, _ = metric.shape
    place = torch.arange(n_tokens, device=metric.device)
    in_a = (place >= n_prefix) & (place % 2 == 0)
    in_b = (place >= n_prefix) & (place % 2 == 1)
    a, b = place[in_a], place[in_b]
    r = min(r, (n_tokens - n_prefix) // 2, len(a) if len(b) else 0)
    if r == 0:
        return place.expand(n_images, -1), n_tokens
    unit = F.normalize(metric, dim=-1)
    nearest, partner = (unit[:, a] @ unit[:, b].transpose(1, 2)).max(dim=-1)
    order = nearest.argsort(dim=-1, descending=True)
    merged, alone = order[:, :r], order[:, r:]
    if n_prefix:
        alone = alone.sort(dim=1).values  # as published, where there is a CLS token
    n_alone = len(a) - r
    target = place.new_zeros(n_images, n_tokens)
    target[:, :n_prefix] = place[:n_prefix]
    target[:, b] = n_prefix + n_alone + torch.arange(len(b), device=metric.device)
    of_a = place.new_zeros(n_images, len(a))
    of_a.scatter_(1, alone, (n_prefix + torch.arange(n_alone, device=metric.device)).expand(n_images, -1))
    of_a.scatter_(1, merged, n_prefix + n_alone + partner.gather(1, merged))
    target[:, a] = of_a
    return target, n_tokens - r
