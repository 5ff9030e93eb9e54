"""Running images only as deep as they need: those that have left the batch are not computed on."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.early_exit.rules import ExitRule, margin
from hooked_vit import HookedViT
from hooked_vit.input_checks import require_one_grid

__all__ = ["EarlyExitRun", "early_exit_logits"]


@dataclass(frozen=True)
class EarlyExitRun:
    """The answers of a run with early exit.

    Attributes:
        class_logits: Of each image, from the block that it left after.
        layer: That block.
    """

    class_logits: Float[Tensor, "batch n_classes"]
    layer: Int[Tensor, "batch"]

    @property
    def mean_depth(self) -> float:
        """How many blocks an image passed on average."""
        return float(self.layer.double().mean()) + 1


@torch.no_grad()
def early_exit_logits(
    model: HookedViT, images: Float[Tensor, "batch channel height width"], rule: ExitRule
) -> EarlyExitRun:
    """Run a batch block by block; after each block, images that pass the rule leave, and the others go on without them.

    An image's answer does not depend on the others in the batch. Images that never pass have the logits of the whole
    model. Nothing is computed for images that have left, and the batch is not padded, so the time goes down with the
    mean depth, apart from the readouts and from what small batches cost.

    Args:
        model: The model.
        images: Preprocessed images of one size.
        rule: When images leave, such as `ExitRule(0.5)`; `calibrate` chooses a threshold.

    Raises:
        ValueError: If the readout does not fit the model, or the model refuses the images.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> run = early_exit_logits(model, torch.zeros(2, 3, 64, 64), ExitRule(0.0))
    >>> run.layer.tolist(), run.mean_depth
    ([0, 0], 1.0)
    """
    rule.readout.check(model)
    require_one_grid(images)
    size = (images.shape[-2], images.shape[-1])
    residual = model(images, stop_at_layer=0)
    n_images, last = len(images), model.cfg.n_layers - 1
    there = torch.arange(n_images, device=residual.device)
    layers = torch.full_like(there, last)
    left: list[Tensor] = []
    answers: list[Tensor] = []
    tops = torch.full_like(there, -1)
    streak = torch.zeros_like(there)
    for layer in range(last):
        residual = model(residual, start_at_layer=layer, stop_at_layer=layer + 1, image_size=size)
        class_logits = rule.readout.class_logits(model, residual, layer)
        if rule.measure == "margin":
            leaves = margin(class_logits) >= rule.threshold
        else:
            top = class_logits.argmax(dim=-1)
            streak = torch.where(top == tops, streak, 0) + 1
            tops = top
            leaves = streak >= rule.threshold
        if not leaves.any():
            continue
        left.append(there[leaves])
        answers.append(class_logits[leaves])
        layers[there[leaves]] = layer
        there, residual, tops, streak = (part[~leaves] for part in (there, residual, tops, streak))
        if not len(there):
            break
    else:
        left.append(there)
        answers.append(model(residual, start_at_layer=last, image_size=size))
    # joined at the end: under autocast, readouts and the last block may answer in different types
    return EarlyExitRun(torch.cat(answers)[torch.cat(left).argsort()], layers)
