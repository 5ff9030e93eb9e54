"""AUROC and F1 of every feature for every factor value, exactly, from pooled values of images."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["auroc", "best_f1", "f1_at"]

CHUNK_ELEMENTS = 2**18  # numbers that `best_f1` holds at a time: few, so that they stay in the cache


def auroc(values: Float[Tensor, "image feature"], truth: Bool[Tensor, "image value"]) -> Float[Tensor, "feature value"]:
    """The area under the ROC curve of each feature as a score of each factor value; ties count one half.

    The probability that an image with the value has more of the feature than one without: 0.5 by chance. From
    midranks, so it equals `sklearn.metrics.roc_auc_score`. NaN where all images have the value, or none.

    Raises:
        ValueError: If the numbers of images differ.

    >>> auroc(torch.tensor([[0.0], [0.0], [2.0]]), torch.tensor([[False], [True], [True]]))
    tensor([[0.7500]], dtype=torch.float64)
    """
    _check(values, truth)
    ranks = _midranks(values)
    members = truth.double()
    n_positive = members.sum(dim=0)
    n_negative = len(values) - n_positive
    above = ranks.T @ members - n_positive * (n_positive + 1) / 2
    return above / (n_positive * n_negative).where(n_positive * n_negative > 0, torch.nan)


def best_f1(
    values: Float[Tensor, "image feature"], truth: Bool[Tensor, "image value"]
) -> tuple[Float[Tensor, "feature value"], Float[Tensor, "feature value"]]:
    """The largest F1 of each feature for each factor value over all thresholds, and the threshold.

    An image is predicted to have the value if the feature is at least the threshold, which is one of the feature's
    values. Among equally good thresholds, the largest. Choose on one half of the images, and measure with `f1_at` on
    the other.

    Raises:
        ValueError: If the numbers of images differ, or there is none.

    >>> best_f1(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[False], [True], [True]]))
    (tensor([[1.]], dtype=torch.float64), tensor([[1.]]))
    """
    _check(values, truth)
    if not len(values):
        raise ValueError("expected at least one image to choose thresholds on, got none")
    n_images, members = len(values), truth.float()
    # the F1's denominator: images that are predicted, plus those that have the value
    sizes = torch.arange(1, n_images + 1, device=values.device).float()[:, None] + members.sum(dim=0)
    n_at_once = max(1, CHUNK_ELEMENTS // max(1, members.numel()))
    scores, thresholds = [], []
    for chunk in values.split(n_at_once, dim=1):
        ordered, order = chunk.sort(dim=0, descending=True)
        hits = members[order.T]  # [feature image value]
        f1 = torch.cumsum(hits, dim=1, out=hits).mul_(2).div_(sizes)
        # a threshold cannot separate equal values
        last = torch.ones_like(ordered, dtype=torch.bool)
        last[:-1] = ordered[:-1] != ordered[1:]
        best, at = f1.masked_fill_(~last.T[:, :, None], -1).max(dim=1)
        # counts are whole numbers, so the rounding of single precision can be undone
        size = sizes.gather(0, at).double()
        scores.append((best.double() * size).round() / size)
        thresholds.append(ordered.T.gather(1, at))
    empty = values.new_zeros(0, truth.shape[1])
    return torch.cat([*scores, empty.double()]), torch.cat([*thresholds, empty])


def f1_at(
    values: Float[Tensor, "image chosen"],
    thresholds: Float[Tensor, "chosen"],
    truth: Bool[Tensor, "image chosen"],
) -> Float[Tensor, "chosen"]:
    """F1 of chosen features, each for its own factor value, at given thresholds.

    `2 TP / (2 TP + FP + FN)`, and 0 where there is nothing to find and nothing predicted.

    >>> f1_at(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([2.0]), torch.tensor([[False], [True], [True]]))
    tensor([0.6667], dtype=torch.float64)
    """
    predicted = values >= thresholds
    hits = (predicted & truth).sum(dim=0).double()
    return 2 * hits / (predicted.sum(dim=0) + truth.sum(dim=0)).clamp(min=1)


def _midranks(values: Tensor) -> Float[Tensor, "image feature"]:
    """Ranks from 1; equal values share the mean of their ranks."""
    columns = values.T.contiguous()
    ordered = columns.sort(dim=1).values
    below = torch.searchsorted(ordered, columns)
    up_to = torch.searchsorted(ordered, columns, right=True)
    return ((below + up_to + 1).double() / 2).T


def _check(values: Tensor, truth: Tensor) -> None:
    if len(values) != len(truth):
        raise ValueError(f"expected values and truth of the same images, got {len(values)} and {len(truth)} images")
