"""Removal curves: predictions while patch tokens are removed one after another, in the order of a map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.faithfulness.areas import AucRule, auc_interval, removal_auc
from hooked_vit import HookedViT, HookedViTConfig, KeptTokens
from hooked_vit.input_checks import require_one_grid

__all__ = [
    "AucRule",
    "RemovalCurve",
    "RemovalOrder",
    "auc_interval",
    "most_removals",
    "removal_auc",
    "removal_curve",
    "removal_order",
]

RemovalOrder = Literal["negative", "positive"]
"""`negative`: least important patches first; `positive`: most important first."""

TOKENS_DROPPED = "patch tokens dropped after the position embedding"


@dataclass(frozen=True)
class RemovalCurve:
    """Predictions while patches are removed.

    Attributes:
        n_removed: Number of removed patches at each step.
        correct: Whether each image is classified correctly.
        probability: The label's probability.
        n_patches: Number of patches of a whole image.
        removal: How patches were removed.
        samples: A description of the images.
    """

    n_removed: Int[Tensor, "step"]
    correct: Bool[Tensor, "step batch"]
    probability: Float[Tensor, "step batch"]
    n_patches: int
    removal: str = TOKENS_DROPPED
    samples: str = "all images"

    @property
    def accuracy(self) -> Float[Tensor, "step"]:
        """Share of images that are classified correctly at each step, 0 to 1."""
        return self.correct.double().mean(dim=1).float()

    def auc(self, rule: AucRule = "published") -> float:
        """The area under the accuracy, by `removal_auc`."""
        accuracy = self.correct.double().mean(dim=1).cpu().numpy()
        return float(removal_auc(accuracy, self.n_removed.cpu().numpy(), self.n_patches, rule))


def removal_order(maps: Float[Tensor, "batch patch"], direction: RemovalOrder) -> Int[Tensor, "batch patch"]:
    """The order in which to remove patches: least important first (`"negative"`), or most important (`"positive"`).

    A good map keeps accuracy high under negative perturbation and low under positive perturbation.

    Raises:
        ValueError: If there is no such direction, or a map contains NaN.

    >>> removal_order(torch.tensor([[0.1, 0.7, 0.2]]), "negative").tolist()
    [[0, 2, 1]]
    """
    if direction not in get_args(RemovalOrder):
        raise ValueError(f"expected direction 'negative' (least important first) or 'positive', got {direction!r}")
    if maps.isnan().any():
        raise ValueError(f"{int(maps.isnan().any(dim=1).sum())} of {len(maps)} maps contain NaN and cannot be ranked")
    return maps.argsort(dim=1, descending=direction == "positive", stable=True)


def most_removals(cfg: HookedViTConfig, n_patches: int) -> int:
    """How many patches can be removed: all if the head reads prefix tokens; one must stay where it reads patches."""
    reads_prefix = cfg.read_tokens.start < cfg.token_layout.n_prefix and cfg.pool != "cls_and_mean"
    return n_patches if reads_prefix else n_patches - 1


@torch.no_grad()
def removal_curve(
    model: HookedViT,
    images: Float[Tensor, "batch channel height width"] | Float[Tensor, "batch token d_model"],
    labels: Int[Tensor, "batch"],
    order: Int[Tensor, "batch patch"],
    n_removed: Sequence[int] | None = None,
    *,
    samples: str = "all images",
    start_at_layer: Literal[0] | None = None,
) -> RemovalCurve:
    """Predictions after 0, 1, 2, ... removals of patch tokens, after the position embedding (paper, section 6).

    Patches are embedded once. At each step all images run together on their remaining tokens, so removed tokens cost
    nothing: removing all patches one by one takes about half the time of as many full passes.

    Args:
        model: The model.
        images: Preprocessed images of the model's own size, or the stream's start with `start_at_layer=0`.
        labels: The class of each image.
        order: Each image's patches in the order of removal, such as `removal_order(maps, "negative")`.
        n_removed: The numbers of removals to evaluate; by default all, from none to `most_removals`.
        samples: A description of the images, stored with the result, such as "classified correctly when whole".
        start_at_layer: 0 if `images` is the stream's start, `hook_tokens`.

    Raises:
        ValueError: If `order` is not an order of the patches, or so many removals leave the head nothing to read.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> order = torch.arange(64).expand(2, -1)
    >>> curve = removal_curve(model, torch.zeros(2, 3, 64, 64), torch.tensor([3, 14]), order, n_removed=[0, 32, 64])
    >>> curve.accuracy.shape, curve.removal
    (torch.Size([3]), 'patch tokens dropped after the position embedding')
    """
    model.require_several_classes("accuracy under removal")
    require_one_grid(images)
    layout = model.token_layout
    steps = checked_steps(order, n_removed, len(images), layout.n_patches, most_removals(model.cfg, layout.n_patches))
    # the position of each patch in the order
    removed_at = order.to(model.cfg.device).argsort(dim=1)
    tokens = model(images, stop_at_layer=0, start_at_layer=start_at_layer)
    keep = torch.ones(len(images), layout.n_tokens, dtype=torch.bool, device=removed_at.device)
    predictions = []
    for n in steps:
        keep[:, layout.patches] = removed_at >= n
        remaining = KeptTokens.from_mask(keep, layout).take(tokens)
        predictions.append(model(remaining, start_at_layer=0, token_mask=keep))
    return curve_of(predictions, labels, steps, layout.n_patches, TOKENS_DROPPED, samples)


def checked_steps(
    order: Int[Tensor, "batch patch"], n_removed: Sequence[int] | None, n_images: int, n_patches: int, most: int
) -> list[int]:
    """The numbers of removals to evaluate; ValueError if the order or these numbers are invalid."""
    patches = torch.arange(n_patches, device=order.device).expand(n_images, -1)
    if order.shape != patches.shape or not torch.equal(order.sort(dim=1).values, patches):
        raise ValueError(
            f"order must list the patches 0 to {n_patches - 1} once for each of {n_images} images, got shape "
            f"{tuple(order.shape)}: `removal_order(maps, 'negative')` makes an order from maps [batch patch]"
        )
    steps = list(range(most + 1)) if n_removed is None else [int(n) for n in n_removed]
    if not steps or steps != sorted(set(steps)) or steps[0] < 0 or steps[-1] > most:
        raise ValueError(
            f"n_removed must increase, from 0 or more to at most {most} of {n_patches} patches"
            + (" (the head reads patches, so one must stay)" if most < n_patches else "")
            + f", got {steps}"
        )
    return steps


def curve_of(
    class_logits: Sequence[Float[Tensor, "batch n_classes"]],
    labels: Int[Tensor, "batch"],
    steps: Sequence[int],
    n_patches: int,
    removal: str,
    samples: str,
) -> RemovalCurve:
    """The removal curve, from the class logits at each step."""
    stacked = torch.stack(list(class_logits))
    labels = labels.to(stacked.device)
    index = labels[None, :, None].expand(len(stacked), -1, 1)
    return RemovalCurve(
        n_removed=torch.tensor(list(steps)),
        correct=stacked.argmax(dim=-1) == labels,
        probability=stacked.softmax(dim=-1).gather(-1, index)[..., 0],
        n_patches=n_patches,
        removal=removal,
        samples=samples,
    )
