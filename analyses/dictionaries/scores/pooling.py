"""One number per image and feature: the largest or mean value over the image's tokens, from one pass over a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses.data.dataset import LabelledImages
from analyses.dictionaries.images import image_batches
from analyses.dictionaries.scores.features import Features
from analyses.dictionaries.tokens import chosen_tokens, per_token
from hooked_vit import HookedViT

__all__ = ["PooledFeatures", "halves", "pool_features"]

Pooling = Literal["max", "mean"]


@dataclass(frozen=True)
class PooledFeatures:
    """One number per image for each feature.

    Attributes:
        name: The features' name.
        values: The largest or mean value over the image's tokens, in half precision.
        labels: The class of each image.
        index: The index of each image in the dataset.
        pooling: `max` or `mean`.
    """

    name: str
    values: Float[Tensor, "image feature"]
    labels: Int[Tensor, "image"]
    index: Int[Tensor, "image"]
    pooling: Pooling = "max"

    def __len__(self) -> int:
        return len(self.values)

    def of_images(self, chosen: Int[Tensor, "chosen"] | Bool[Tensor, "image"] | slice) -> "PooledFeatures":
        """The same for some images."""
        return replace(self, values=self.values[chosen], labels=self.labels[chosen], index=self.index[chosen])

    @property
    def live(self) -> Bool[Tensor, "feature"]:
        """True for features that are not the same in all images."""
        return (self.values != self.values[:1]).any(dim=0)


@torch.no_grad()
def pool_features(
    model: HookedViT,
    dataset: LabelledImages,
    features: Sequence[Features],
    *,
    pooling: Pooling = "max",
    batch_size: int = 32,
    limit: int | None = None,
    progress: bool | None = None,
) -> dict[str, PooledFeatures]:
    """Pool features over each image's tokens, all in one pass over a dataset.

    Tokens are never held beyond their batch. What is held takes two bytes per image and feature: 4 MB for 1,000 images
    and 2,048 latents. `limit` bounds it, whatever the length of the dataset.

    Args:
        model: The model.
        dataset: The images.
        features: Their names must differ.
        pooling: `max`, which asks whether a feature is anywhere in the image; or `mean`.
        batch_size: Images per forward pass.
        limit: Only so many images.
        progress: Whether to show a bar; by default on a terminal.

    Raises:
        ValueError: If there are no features, two have one name, a hook point or group of tokens does not exist, or a
            value is too large for half precision.

    >>> from analyses.data import EmojiScenes
    >>> from analyses.dictionaries.scores.features import neuron_features
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> pooled = pool_features(model, EmojiScenes(4, seed=0), [neuron_features(model, 5)], progress=False)
    >>> pooled["neurons"].values.shape
    torch.Size([4, 512])
    """
    names = [one.name for one in features]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected features with different names, got {names}: `features.called(name)` renames them")
    if pooling not in ("max", "mean"):
        raise ValueError(f"expected pooling 'max' or 'mean', got {pooling!r}")
    points = model.hook_names(list(dict.fromkeys(one.reads for one in features)))
    values: dict[str, list[Tensor]] = {name: [] for name in names}
    labels, index = [], []
    for batch in image_batches(model, dataset, points, batch_size=batch_size, limit=limit, progress=progress):
        for one in features:
            activation = per_token(batch.cache[one.reads])
            chosen = chosen_tokens(model, one.tokens, activation.shape[1])
            tokens = one.encode(activation[:, chosen])
            values[one.name].append(_half(tokens.amax(dim=1) if pooling == "max" else tokens.mean(dim=1), one.name))
        labels.append(batch.labels.cpu())
        index.append(batch.index.cpu())
    every_label, every_index = torch.cat(labels), torch.cat(index)
    return {
        name: PooledFeatures(name, torch.cat(parts), every_label, every_index, pooling)
        for name, parts in values.items()
    }


def halves(n_images: int, seed: int = 0) -> tuple[Bool[Tensor, "image"], Bool[Tensor, "image"]]:
    """Two random halves of the images, as masks: one to choose on, one to measure on.

    Raises:
        ValueError: If there are fewer than two images.

    >>> first, second = halves(5)
    >>> int(first.sum()), bool((first ^ second).all())
    (2, True)
    """
    if n_images < 2:
        raise ValueError(f"expected at least two images, one to choose on and one to measure on, got {n_images}")
    order = torch.randperm(n_images, generator=torch.Generator().manual_seed(seed))
    first = torch.zeros(n_images, dtype=torch.bool)
    first[order[: n_images // 2]] = True
    return first, ~first


def _half(values: Tensor, name: str) -> Tensor:
    half = values.cpu().half()
    if not half.isfinite().all():
        largest = float(values.abs().max())
        raise ValueError(
            f"'{name}' reach {largest:.3g}, which half precision cannot hold (or are not finite): divide them by a "
            "constant, which changes no rank"
        )
    return half
