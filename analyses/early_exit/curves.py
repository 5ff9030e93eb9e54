"""Accuracy against mean depth over all thresholds, and the area under that curve, with intervals over images."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.early_exit.rules import exit_layers
from analyses.statistics.intervals import Resampling, bootstrap_statistic

__all__ = ["depth_area", "exit_curve"]


def exit_curve(
    confidence: Float[Tensor, "layer batch"] | Int[Tensor, "layer batch"],
    correct: Bool[Tensor, "layer batch"],
    thresholds: Float[Tensor, "threshold"],
    resampling: Resampling = Resampling(),
) -> list[dict[str, Any]]:
    """Rows of accuracy in percent at each threshold, with its mean depth, and one of the area under the curve.

    Args:
        confidence: A measure after each block.
        correct: Whether the class after each block is right.
        thresholds: In ascending order, from one that all images pass at the first block.
        resampling: Bootstrap intervals over images. Curves of the same images are drawn alike.

    >>> confidence = torch.tensor([[0.9, 0.2], [0.9, 0.8]])
    >>> correct = torch.tensor([[True, False], [True, True]])
    >>> rows = exit_curve(confidence, correct, torch.tensor([0.0, 0.5, 1.0]))
    >>> [(row["depth"], row["value"]) for row in rows]
    [(1.0, 50.0), (1.5, 100.0), (2.0, 100.0), (nan, 87.5)]
    """
    n_layers = len(confidence)
    left = torch.stack([exit_layers(confidence, threshold) for threshold in thresholds.tolist()])
    right = 100 * correct.T.gather(1, left.T).double().numpy()  # [image threshold]
    depth = left.T.double().numpy() + 1
    observations = np.concatenate([depth, right], axis=1)

    def accuracies_and_area(drawn: np.ndarray) -> np.ndarray:
        """[resample threshold+1], from how often each image was drawn."""
        mean_depth, accuracy = np.split(drawn @ observations / len(right), 2, axis=1)
        return np.column_stack([accuracy, depth_area(mean_depth, accuracy, n_layers)])

    options = (resampling.level, resampling.n_resamples, resampling.seed)
    interval = bootstrap_statistic(accuracies_and_area, [len(right)], (right.shape[1] + 1,), *options)
    rows = [
        {
            "point": "curve",
            "threshold": float(threshold),
            "depth": float(depth[:, t].mean()),
            "metric": "accuracy",
            "value": float(interval.estimate[t]),
            "low": float(interval.low[t]),
            "high": float(interval.high[t]),
        }
        for t, threshold in enumerate(thresholds.tolist())
    ]
    area = {"value": interval.estimate[-1], "low": interval.low[-1], "high": interval.high[-1]}
    area = {name: float(number) for name, number in area.items()}
    return [*rows, {"point": "area", "threshold": np.nan, "depth": np.nan, "metric": "accuracy", **area}]


def depth_area(
    depth: Float[np.ndarray, "*resamples threshold"], accuracy: Float[np.ndarray, "*resamples threshold"], n_layers: int
) -> Float[np.ndarray, "*resamples"]:
    """The mean accuracy over depth from 1 to `n_layers`: the area under the curve, over the width of its range.

    The curve is straight between points. Depth rises with the threshold; where the curve ends before `n_layers`, the
    last accuracy goes on.

    >>> float(depth_area(np.array([1.0, 3.0]), np.array([50.0, 100.0]), 5))
    87.5
    """
    if n_layers == 1:
        return np.asarray(accuracy[..., -1])
    inside = np.trapezoid(accuracy, depth, axis=-1)
    return np.asarray((inside + accuracy[..., -1] * (n_layers - depth[..., -1])) / (n_layers - 1))
