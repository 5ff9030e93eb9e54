"""Whether a map lies on the object: pointing game, mask IoU, average precision, and the two-object test."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.statistics.intervals import bootstrap_interval

__all__ = [
    "TwoObjectTest",
    "average_precision",
    "mask_iou",
    "pointing_game",
    "two_object_scores",
    "two_object_test",
]


def pointing_game(maps: Float[Tensor, "*axes patch"], on_object: Bool[Tensor, "*axes patch"]) -> Float[Tensor, "*axes"]:
    """Whether the most important patch is on the object: 1 or 0; if several tie, the share of them on it.

    Chance is the share of patches on the object.

    >>> pointing_game(torch.tensor([[0.1, 0.9, 0.2], [1.0, 1.0, 0.0]]), torch.tensor([[False, True, True]] * 2))
    tensor([1.0000, 0.5000])
    """
    _check(maps, on_object)
    largest = maps == maps.amax(dim=-1, keepdim=True)
    return (largest & on_object).sum(dim=-1) / largest.sum(dim=-1)


def mask_iou(maps: Float[Tensor, "*axes patch"], on_object: Bool[Tensor, "*axes patch"]) -> Float[Tensor, "*axes"]:
    """Intersection over union of the object's patches and as many of the most important ones; NaN without an object.

    No threshold is involved, so maps of any scale can be compared; if patches tie, earlier ones come first.

    >>> mask_iou(torch.tensor([[0.1, 0.9, 0.2, 0.0]]), torch.tensor([[False, True, False, True]]))
    tensor([0.3333])
    """
    _check(maps, on_object)
    size = on_object.sum(dim=-1, keepdim=True)
    position = maps.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    chosen = position < size
    return (chosen & on_object).sum(dim=-1) / (chosen | on_object).sum(dim=-1)


def average_precision(
    maps: Float[Tensor, "*axes patch"], on_object: Bool[Tensor, "*axes patch"]
) -> Float[Tensor, "*axes"]:
    """Average precision of finding the object's patches by importance (scikit-learn's); NaN without an object.

    The mean over the object's patches of the precision at each one's importance: the share on the object among the
    patches that are at least as important. Chance is about the share of patches on the object.

    >>> average_precision(torch.tensor([[0.1, 0.9, 0.2]]), torch.tensor([[True, True, False]]))
    tensor([0.8333])
    """
    _check(maps, on_object)
    at_least = maps[..., None, :] >= maps[..., :, None]  # [... threshold patch]
    precision = (at_least & on_object[..., None, :]).sum(dim=-1) / at_least.sum(dim=-1)
    return (precision * on_object).sum(dim=-1) / on_object.sum(dim=-1)


@dataclass(frozen=True)
class TwoObjectTest:
    """Whether the map for each of two objects' classes lies on that object rather than on the other.

    Attributes:
        own: Mean of the map for an object's class over that object's patches, in standard deviations of the map.
        other: The same over the other object's patches.
        points_to_own: Pointing game on the object.
        points_to_other: Pointing game on the other object.
    """

    own: Float[Tensor, "batch object"]
    other: Float[Tensor, "batch object"]
    points_to_own: Float[Tensor, "batch object"]
    points_to_other: Float[Tensor, "batch object"]

    @property
    def right(self) -> Bool[Tensor, "batch object"]:
        """Whether the map for an object's class is higher on that object; a class-agnostic map is right for one."""
        return self.own > self.other

    @property
    def both_right(self) -> Bool[Tensor, "batch"]:
        """Whether both maps are right: never, if the map is the same for both classes."""
        return self.right.all(dim=-1)


def two_object_test(
    maps: Float[Tensor, "batch object=2 patch"], on_objects: Bool[Tensor, "batch object=2 patch"]
) -> TwoObjectTest:
    """Compare the maps for two objects' classes with both objects.

    Args:
        maps: For each image, the map for the class of the first object and for that of the second.
        on_objects: For each object, whether each patch shows it.

    Raises:
        ValueError: If an object covers no patch, or the shapes differ.

    >>> maps = torch.tensor([[[3.0, 1.0, 0.0], [2.0, 5.0, 0.0]]])
    >>> test = two_object_test(maps, torch.tensor([[[True, False, False], [False, True, False]]]))
    >>> test.right.tolist(), test.both_right.tolist()
    ([[True, True]], [True])
    """
    _check(maps, on_objects)
    empty = ~on_objects.any(dim=-1)
    if empty.any():
        image, object_index = empty.nonzero()[0].tolist()
        raise ValueError(
            f"object {object_index} of image {image} covers no patch: leave out images that do not show both objects"
        )
    spread = maps.std(dim=-1, keepdim=True, correction=0)
    scores = (maps - maps.mean(dim=-1, keepdim=True)) / torch.where(spread > 0, spread, 1)
    others = on_objects.flip(1)
    return TwoObjectTest(
        own=_mean_on(scores, on_objects),
        other=_mean_on(scores, others),
        points_to_own=pointing_game(maps, on_objects),
        points_to_other=pointing_game(maps, others),
    )


def two_object_scores(tests: Mapping[str, TwoObjectTest], *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Several methods' tests as a table, with bootstrap intervals over images.

    Returns:
        One row per `method` and `metric`, `right` (share of maps that are higher on their own object) and
        `both_right` (share of images in which both are): `value`, `low`, `high`, `chance`, the expected
        value of random maps, and `n_images`.

    >>> maps, on_objects = torch.rand(9, 2, 4), (torch.eye(4) > 0)[:2].expand(9, -1, -1)
    >>> two_object_scores({"mine": two_object_test(maps, on_objects)})["metric"].tolist()
    ['right', 'both_right']
    """
    rows = []
    for method, test in tests.items():
        by_image = {"right": (test.right.float().mean(dim=1), 0.5), "both_right": (test.both_right.float(), 0.25)}
        for metric, (scores, chance) in by_image.items():
            interval = bootstrap_interval(scores.cpu().numpy(), level=level, seed=seed)
            numbers = {"value": float(interval.estimate), "low": float(interval.low), "high": float(interval.high)}
            rows.append({"method": method, "metric": metric, **numbers, "chance": chance, "n_images": len(scores)})
    return pd.DataFrame(rows)


def _mean_on(scores: Tensor, on_object: Tensor) -> Tensor:
    return (scores * on_object).sum(dim=-1) / on_object.sum(dim=-1)


def _check(maps: Tensor, on_object: Tensor) -> None:
    if maps.shape != on_object.shape or on_object.dtype != torch.bool:
        raise ValueError(
            f"expected one bool per patch of the maps, {tuple(maps.shape)}, got {on_object.dtype} of shape "
            f"{tuple(on_object.shape)}: `token_labels(mask, model.token_layout.grid)` converts a mask"
        )
    if maps.isnan().any():
        raise ValueError("maps contain NaN, so their patches cannot be ranked")
