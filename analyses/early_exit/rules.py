"""When an image leaves: its margin, or the agreement of its blocks, passes a threshold that other images set."""

from dataclasses import dataclass, field
from math import ceil, inf
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.early_exit.readouts import ClassSpaceReadout, Readout

__all__ = ["ExitMeasure", "ExitRule", "agreement", "calibrate", "exit_layers", "margin"]

ExitMeasure = Literal["margin", "agreement"]
_CANDIDATES = 100


def margin(class_logits: Float[Tensor, "*axes n_classes"]) -> Float[Tensor, "*axes"]:
    """The difference of the two largest probabilities, 0 to 1, in float32.

    A large difference of logits rounds to exactly 1.

    >>> margin(torch.tensor([[9.0, 0.5, 0.5], [0.5, 0.5, 0.5]]).log())
    tensor([0.8500, 0.0000])
    """
    first, second = class_logits.float().softmax(dim=-1).topk(2, dim=-1).values.unbind(dim=-1)
    return first - second


def agreement(top_classes: Int[Tensor, "layer batch"]) -> Int[Tensor, "layer batch"]:
    """How many blocks in a row, up to each block, have the same top class: 1 where it has just changed.

    >>> agreement(torch.tensor([[3], [3], [5], [5], [5]])).T
    tensor([[1, 2, 1, 2, 3]])
    """
    n_layers = len(top_classes)
    layer = torch.arange(n_layers, device=top_classes.device)[:, None].expand_as(top_classes)
    changed = torch.ones_like(top_classes, dtype=torch.bool)
    changed[1:] = top_classes[1:] != top_classes[:-1]
    began = torch.where(changed, layer, 0).cummax(dim=0).values
    return layer - began + 1


def exit_layers(
    confidence: Float[Tensor, "layer batch"] | Int[Tensor, "layer batch"], threshold: float | int
) -> Tensor:
    """The first block after which the confidence is at least the threshold; the last block where it never is.

    Args:
        confidence: `margin` or `agreement` after each block.
        threshold: What it must reach.

    Returns:
        The block of each image, [batch].

    >>> exit_layers(torch.tensor([[0.1, 0.9], [0.6, 0.2], [0.7, 0.3]]), 0.5)
    tensor([1, 0])
    """
    passes = confidence >= threshold
    passes[-1] = True
    return passes.to(torch.uint8).argmax(dim=0)


@dataclass(frozen=True)
class ExitRule:
    """When an image leaves the model, and what says its class.

    Attributes:
        threshold: For `margin`, from 0 (all leave after the first block) to 1 (those whose margin rounds to 1), or
            `math.inf` (none leaves early); for `agreement`, a number of blocks in a row from 1.
        measure: `"margin"`, the difference of the two largest probabilities; or `"agreement"`, how many blocks in a
            row have the same top class.
        readout: What says the class after a block; the model's own head by default. After the last block it is always
            the head itself.

    Raises:
        ValueError: If the measure is unknown, or the threshold is out of its range.

    >>> ExitRule(1.5)
    Traceback (most recent call last):
    ValueError: the threshold of a margin is from 0 to 1, or math.inf for never, got 1.5
    """

    threshold: float | int
    measure: ExitMeasure = "margin"
    readout: Readout = field(default_factory=ClassSpaceReadout)

    def __post_init__(self) -> None:
        if self.measure not in get_args(ExitMeasure):
            raise ValueError(f"the measure is one of {', '.join(get_args(ExitMeasure))}, got {self.measure!r}")
        if self.measure == "margin" and not (0 <= self.threshold <= 1 or self.threshold == inf):
            raise ValueError(f"the threshold of a margin is from 0 to 1, or math.inf for never, got {self.threshold}")
        if self.measure == "agreement" and not (self.threshold >= 1 and float(self.threshold).is_integer()):
            raise ValueError(f"the threshold of agreement is a number of blocks in a row, from 1, got {self.threshold}")


def candidates(measure: ExitMeasure, confidence: Float[Tensor, "layer batch"] | Int[Tensor, "layer batch"]) -> Tensor:
    """Thresholds to choose from, in ascending order: from one that all pass at once to one that none passes early.

    For margins, 0, quantiles of those before the last block, and infinity, as a margin may round to 1; for agreement,
    every number of blocks.
    """
    if measure == "agreement":
        return torch.arange(1, len(confidence) + 1, dtype=torch.float64)
    early = confidence[:-1].flatten().double()
    shares = torch.linspace(0, 1, _CANDIDATES, dtype=torch.float64, device=early.device)
    ends = early.new_tensor([0.0, inf])
    inner = early.quantile(shares).clamp(0, 1) if len(early) else early
    return torch.cat([ends[:1], inner, ends[1:]]).unique().cpu()


def fewest_images(tolerance: float | int) -> int:
    """How many images a threshold is chosen on at least: so many that one of them costs no more than the tolerance.

    No tolerance asks for as many as one point does; a tolerance above five points for 20.

    >>> [fewest_images(tolerance) for tolerance in (0, 0.5, 1, 3, 50)]
    [100, 200, 100, 34, 20]
    """
    return max(20, ceil(100 / tolerance - 1e-9)) if tolerance else 100


def calibrate(
    confidence: Float[Tensor, "layer batch"] | Int[Tensor, "layer batch"],
    correct: Bool[Tensor, "layer batch"],
    measure: ExitMeasure = "margin",
    *,
    tolerance: float | int = 1.0,
) -> float:
    """The lowest threshold that costs no more than some accuracy on these images.

    On other images expect it to cost more: of all thresholds it is the one that just passes here, by chance too. The
    more images, the smaller the difference; measure it on others, as `EarlyExit` does.

    Args:
        confidence: `margin` or `agreement` after each block.
        correct: Whether the readout's class after each block is right; after the last, the model's own.
        measure: Which of the two the confidence is.
        tolerance: How many percentage points below that of the whole model the accuracy may be.

    Raises:
        ValueError: If there are too few images for one of them to cost no more than the tolerance (100 for a point, and
            for no tolerance), shapes differ, or the tolerance is not from 0 to 100.

    >>> confidence = torch.tensor([[0.9, 0.2], [0.9, 0.8]]).repeat(1, 50)
    >>> correct = torch.tensor([[True, False], [True, True]]).repeat(1, 50)
    >>> 0.2 < calibrate(confidence, correct, tolerance=0) <= 0.9
    True
    """
    if confidence.shape != correct.shape:
        raise ValueError(
            f"expected confidence and correctness [layer batch] of one shape, got {tuple(confidence.shape)} and "
            f"{tuple(correct.shape)}"
        )
    if not 0 <= tolerance <= 100:
        raise ValueError(f"the tolerance is in percentage points of accuracy, from 0 to 100, got {tolerance}")
    n_images = confidence.shape[1]
    if n_images < fewest_images(tolerance):
        raise ValueError(
            f"{n_images} images are too few to choose a threshold on for a tolerance of {tolerance:g} points: take at "
            f"least {fewest_images(tolerance)}, better several times as many"
        )
    thresholds = candidates(measure, confidence)
    wanted = 100 * correct[-1].double().mean() - tolerance
    for threshold in thresholds.tolist():
        left = exit_layers(confidence, threshold)
        accuracy = 100 * correct.gather(0, left[None])[0].double().mean()
        if accuracy >= wanted - 1e-9:
            return threshold
    return float(thresholds[-1])
