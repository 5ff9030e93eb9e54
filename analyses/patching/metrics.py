"""Metrics of a patched run: from logits to one number, or to one number an image."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.projection import class_ranks

__all__ = [
    "Metric", "checked_metric", "class_probability", "class_rank", "kl_divergence", "logit_difference", "metric_values",
]  # fmt: skip

Metric = Callable[[Float[Tensor, "batch n_classes"]], Any]
Classes = int | Sequence[int] | Int[Tensor, "batch"]


def logit_difference(classes: Classes, against: Classes | None = None, per_image: bool = False) -> Metric:
    """A class's logit, or how far it is above another's; the mean over images.

    Args:
        classes: A class index for all images, or one an image.
        against: The other class.
        per_image: One number an image instead of the mean.

    >>> logit_difference([0, 1], against=2)(torch.tensor([[3.0, 0.0, 1.0], [0.0, 5.0, 1.0]]))
    tensor(3.)
    """

    def metric(logits: Float[Tensor, "batch n_classes"]) -> Tensor:
        values = _of(logits, classes)
        return _reduced(values if against is None else values - _of(logits, against), per_image)

    return metric


def class_probability(classes: Classes, per_image: bool = False) -> Metric:
    """The softmax probability of a class, 0 to 1; the mean over images.

    >>> class_probability(0)(torch.tensor([[0.0, 0.0]]))
    tensor(0.5000)
    """
    return lambda logits: _reduced(_of(logits.softmax(dim=-1), classes), per_image)


def kl_divergence(reference: Float[Tensor, "batch n_classes"], per_image: bool = False) -> Metric:
    """`KL(reference || run)` between the class distributions of two runs, in nats; the mean over images.

    Args:
        reference: Logits of the run to compare with.
        per_image: One number an image instead of the mean.
    """
    log_p = reference.detach().log_softmax(dim=-1)

    def metric(logits: Float[Tensor, "batch n_classes"]) -> Tensor:
        return _reduced((log_p.exp() * (log_p - logits.log_softmax(dim=-1))).sum(dim=-1), per_image)

    return metric


def class_rank(classes: Classes, per_image: bool = False) -> Metric:
    """How many classes' logits are strictly greater than a class's; the mean over images. It has no gradient.

    >>> class_rank(1)(torch.tensor([[3.0, 0.0, 1.0], [0.0, 5.0, 1.0]]))
    tensor(1.)
    """
    return lambda logits: _reduced(class_ranks(logits, _index(logits, classes)).to(logits.dtype), per_image)


def checked_metric(metric: Metric, logits: Float[Tensor, "batch n_classes"], per_image: bool) -> Tensor:
    """What a metric says of one batch of logits.

    Raises:
        ValueError: If it is not one number, or with `per_image` not one an image.
    """
    value = torch.as_tensor(metric(logits), device=logits.device)
    if per_image and value.shape != (len(logits),):
        raise ValueError(
            f"with per_image, metric must return a number an image, [{len(logits)}], got shape {tuple(value.shape)}"
        )
    if not per_image and value.shape != ():
        hint = ""
        if value.shape == (len(logits),):
            hint = ": take its mean over images, or pass per_image=True to keep a number an image"
        raise ValueError(f"metric must return one number (a scalar), got shape {tuple(value.shape)}{hint}")
    return value if value.is_floating_point() else value.to(logits.dtype)


def metric_values(metric: Metric, logits: Float[Tensor, "cell batch n_classes"], per_image: bool) -> Tensor:
    """What a metric says of each of several batches of logits: [cell], or [cell batch]."""
    if len(logits) > 1:
        try:
            values = torch.vmap(metric)(logits)
        except Exception:  # whatever a user's function does that vmap cannot; what is wrong with it shows below
            values = None
        if isinstance(values, Tensor) and values.shape == logits.shape[: 1 + per_image]:
            return values if values.is_floating_point() else values.to(logits.dtype)
    return torch.stack([checked_metric(metric, one, per_image) for one in logits])


def _index(logits: Tensor, classes: Classes) -> Tensor:
    return torch.as_tensor(classes, device=logits.device).expand(logits.shape[:-1])


def _of(logits: Tensor, classes: Classes) -> Tensor:
    return logits.gather(-1, _index(logits, classes)[..., None])[..., 0]


def _reduced(values: Tensor, per_image: bool) -> Tensor:
    return values if per_image else values.mean()
