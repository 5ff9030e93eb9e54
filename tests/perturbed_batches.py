"""Small models that know their preprocessing, and batches of images with labels, for perturbations of images."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from conftest import ported
from torch import Tensor

from analyses.analysis.base import AnalysisBatch
from hooked_vit import HookedViT

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@lru_cache(maxsize=8)
def model_with_pictures(kind: str) -> HookedViT:
    """A model of `KINDS` that takes pictures of 32 × 24 pixels, which a test must not change."""
    model = ported(kind).with_weights(ported(kind)._tensors())
    model.data_config = {
        "input_size": (3, 32, 24),
        "mean": MEAN,
        "std": STD,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
    }
    return model


def item(index: int) -> tuple[Tensor, int, Tensor]:
    """An endless dataset of pictures, as model inputs of 8-bit values, with labels and masks."""
    rng = np.random.default_rng(index)
    pixels = torch.from_numpy(rng.integers(0, 256, (3, 32, 24), dtype=np.uint8)).float().div(255)
    image = pixels.sub(torch.tensor(MEAN)[:, None, None]).div(torch.tensor(STD)[:, None, None])
    mask = torch.zeros(32, 24, dtype=torch.bool)
    mask[4 : 17 + index % 5, 2:13] = True
    return image, index % 7, mask


def perturbed_batch(kind: str, index: Sequence[int] = (0, 1, 2), names: object = "resid_post") -> AnalysisBatch:
    """Some items after their forward pass."""
    model = model_with_pictures(kind)
    images, labels, masks = zip(*map(item, index), strict=True)
    stacked = torch.stack(images)
    with torch.no_grad():
        logits, cache = model.run_with_cache(stacked, names_filter=names)
    numbers = torch.tensor(labels), torch.tensor(index)
    return AnalysisBatch(model, cache, logits, *numbers, torch.stack(masks), stacked)
