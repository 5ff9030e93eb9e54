"""Adversarial perturbations of pixels, by captum: one step of the gradient's sign, or many."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from analyses.analysis.base import AnalysisBatch
from hooked_vit.preprocessing import channel_statistics

__all__ = ["FGSM", "PGD"]


@dataclass(frozen=True)
class FGSM:
    """One step of size `epsilon` along the sign of the gradient of the label's cross-entropy (Goodfellow et al. 2015).

    Attributes:
        epsilon: The largest change of a pixel, in steps of 8-bit values (1 of 255).

    Raises:
        ValueError: If `epsilon` is not above 0.
        ImportError: If captum is not installed.
    """

    epsilon: float = 1.0
    moves_pixels = False
    passes = 3.0

    def __post_init__(self) -> None:
        _check(self.epsilon)
        _captum("FGSM")

    def __call__(self, batch: AnalysisBatch) -> Float[Tensor, "batch channel height width"]:
        """The images after the attack."""
        return _attacked("FGSM", batch, epsilon=self.epsilon / 255)


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent (Madry et al. 2018): `steps` steps of size `step`, none further than `epsilon`.

    It starts at the image itself, so that it needs no chance.

    Attributes:
        epsilon: The largest change of a pixel, in steps of 8-bit values (1 of 255).
        step: The size of a step, likewise; by default a quarter of `epsilon`.
        steps: Number of steps.

    Raises:
        ValueError: If a size is not above 0, or there is no step.
        ImportError: If captum is not installed.
    """

    epsilon: float = 1.0
    step: float | None = None
    steps: int = 10
    moves_pixels = False

    def __post_init__(self) -> None:
        _check(self.epsilon)
        if self.step is not None:
            _check(self.step)
        if self.steps < 1:
            raise ValueError(f"expected at least one step, got {self.steps}")
        _captum("PGD")

    @property
    def passes(self) -> float:
        """About how many forward passes an attack takes."""
        return 3.0 * self.steps

    def __call__(self, batch: AnalysisBatch) -> Float[Tensor, "batch channel height width"]:
        """The images after the attack."""
        step = self.epsilon / 4 if self.step is None else self.step
        return _attacked("PGD", batch, radius=self.epsilon / 255, step_size=step / 255, step_num=self.steps)


def _check(size: float) -> None:
    if not size > 0:
        raise ValueError(f"expected a size above 0, in steps of 8-bit values, got {size}: 1 changes a pixel by 1/255")


def _captum(attack: str) -> Any:
    try:
        from captum import robust
    except ImportError as error:
        raise ImportError(f"{attack} needs captum: pip install 'hooked-vit[explain]'") from error
    return getattr(robust, attack)


def _attacked(attack: str, batch: AnalysisBatch, **options: Any) -> Float[Tensor, "batch channel height width"]:
    """The attack in the space of pixels from 0 to 1, which it does not leave."""
    assert batch.images is not None
    model, images = batch.model, batch.images
    mean, std = (
        numbers.to(images)[:, None, None] for numbers in channel_statistics(model.cfg.n_channels, model.data_config)
    )
    loss = nn.CrossEntropyLoss(reduction="none")

    def of_pixels(pixels: Tensor) -> Tensor:
        return model((pixels - mean) / std)

    with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        made = _captum(attack)(of_pixels, loss, lower_bound=0.0, upper_bound=1.0)
        pixels = (images.clone() * std + mean).clamp(0, 1)
        attacked = made.perturb(pixels, target=batch.labels.clone(), **options)
    return ((attacked.detach() - mean) / std).to(images)
