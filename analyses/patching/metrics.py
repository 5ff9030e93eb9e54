"""Metrics of a patched run: from logits to one number, or to one number per image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.projection import class_ranks
from hooked_vit.class_space import require_several_classes

__all__ = [
    "LogitMetric", "Metric", "checked_metric", "class_probability", "class_rank", "kl_divergence", "logit_difference",
    "metric_values",
]  # fmt: skip

Metric = Callable[[Float[Tensor, "batch n_classes"]], Any]
Classes = int | Sequence[int] | Int[Tensor, "batch"]


@dataclass(frozen=True)
class LogitMetric:
    """A metric that takes any axes before the batch axis, so that many patched runs are measured in one call.

    Attributes:
        measure: One number per image, from its logits.
        per_image: Whether to return these numbers instead of their mean over images.

    >>> largest = LogitMetric(lambda logits: logits.amax(dim=-1))
    >>> largest(torch.zeros(2, 7)).shape, largest(torch.zeros(5, 2, 7)).shape
    (torch.Size([]), torch.Size([5]))
    """

    measure: Callable[[Float[Tensor, "*cells batch n_classes"]], Float[Tensor, "*cells batch"]]
    per_image: bool = False

    def __call__(self, logits: Float[Tensor, "*cells batch n_classes"]) -> Tensor:
        """One number per cell, or per cell and image."""
        values = self.measure(logits)
        return values if self.per_image else values.mean(dim=-1)


def logit_difference(classes: Classes, against: Classes | None = None, per_image: bool = False) -> LogitMetric:
    """A class's logit, or its difference to another class's logit; the mean over images.

    Args:
        classes: A class index for all images, or one per image.
        against: The other class.
        per_image: One number per image instead of the mean.

    >>> logit_difference([0, 1], against=2)(torch.tensor([[3.0, 0.0, 1.0], [0.0, 5.0, 1.0]]))
    tensor(3.)
    """

    def measure(logits: Tensor) -> Tensor:
        values = _at_classes(logits, classes)
        return values if against is None else values - _at_classes(logits, against)

    return LogitMetric(measure, per_image)


def class_probability(classes: Classes, per_image: bool = False) -> LogitMetric:
    """The softmax probability of a class, 0 to 1; the mean over images.

    >>> class_probability(0)(torch.tensor([[0.0, 0.0]]))
    tensor(0.5000)
    """

    def measure(logits: Tensor) -> Tensor:
        require_several_classes(logits.shape[-1], "the softmax probability of a class")
        return _at_classes(logits.softmax(dim=-1), classes)

    return LogitMetric(measure, per_image)


def kl_divergence(reference: Float[Tensor, "batch n_classes"], per_image: bool = False) -> LogitMetric:
    """`KL(reference || run)` between the class distributions of two runs, in nats; the mean over images.

    Args:
        reference: Logits of the run to compare with.
        per_image: One number per image instead of the mean.
    """
    require_several_classes(reference.shape[-1], "the divergence of two class distributions")
    log_p = reference.detach().log_softmax(dim=-1)

    def measure(logits: Tensor) -> Tensor:
        return (log_p.exp() * (log_p - logits.log_softmax(dim=-1))).sum(dim=-1)

    return LogitMetric(measure, per_image)


def class_rank(classes: Classes, per_image: bool = False) -> LogitMetric:
    """The number of classes whose logit is strictly greater than a class's; the mean over images. It has no gradient.

    >>> class_rank(1)(torch.tensor([[3.0, 0.0, 1.0], [0.0, 5.0, 1.0]]))
    tensor(1.)
    """
    return LogitMetric(lambda logits: class_ranks(logits, _indices(logits, classes)).to(logits.dtype), per_image)


def checked_metric(metric: Metric, logits: Float[Tensor, "batch n_classes"], per_image: bool) -> Tensor:
    """The value of a metric for one batch of logits.

    Raises:
        ValueError: If it is not one number, or with `per_image` not one number per image.
    """
    value = torch.as_tensor(metric(logits), device=logits.device)
    if per_image and value.shape != (len(logits),):
        raise ValueError(
            f"with per_image, metric must return one number per image, [{len(logits)}], got shape {tuple(value.shape)}"
        )
    if not per_image and value.shape != ():
        hint = ""
        if value.shape == (len(logits),):
            hint = ": take its mean over images, or pass per_image=True to keep one number per image"
        raise ValueError(f"metric must return one number (a scalar), got shape {tuple(value.shape)}{hint}")
    return value if value.is_floating_point() else value.to(logits.dtype)


def metric_values(metric: Metric, logits: Float[Tensor, "cell batch n_classes"], per_image: bool) -> Tensor:
    """The values of a metric for several batches of logits: [cell], or [cell batch].

    A `LogitMetric` takes all of them in one call, any other metric one batch at a time.
    """
    if isinstance(metric, LogitMetric) and metric.per_image == per_image:
        return metric(logits)
    return torch.stack([checked_metric(metric, batch_logits, per_image) for batch_logits in logits])


def _indices(logits: Tensor, classes: Classes) -> Tensor:
    return torch.as_tensor(classes, device=logits.device).expand(logits.shape[:-1])


def _at_classes(logits: Tensor, classes: Classes) -> Tensor:
    return logits.gather(-1, _indices(logits, classes)[..., None])[..., 0]
