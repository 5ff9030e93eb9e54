"""The model's accuracy, which every sweep measures."""

import pandas as pd
import torch
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from hooked_vit import HookedViTConfig
from hooked_vit.class_space import require_several_classes

__all__ = ["Accuracy"]


class Accuracy(Analysis):
    """Percentage of images whose class has the largest logit (`top1`), or one of the five largest (`top5`).

    An image counts for `topk` if fewer than k classes have a logit strictly greater than that of its own class.
    """

    n_images: Tensor
    n_top1: Tensor
    n_top5: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("n_images", "n_top1", "n_top5"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """No hook points: the logits are enough."""
        return []

    def update(self, batch: AnalysisBatch) -> None:
        """Count the images of a batch, and those classified correctly."""
        require_several_classes(batch.logits.shape[-1], "accuracy")
        label_logits = batch.logits.gather(-1, batch.labels[:, None])
        rank = (batch.logits > label_logits).sum(dim=-1)
        self.n_images += len(rank)
        self.n_top1 += (rank < 1).sum()
        self.n_top5 += (rank < 5).sum()

    def compute(self) -> pd.DataFrame:
        """One row: `n_images`, and `top1` and `top5` in percent."""
        n_images = int(self.n_images)
        shares = {name: 100 * int(n) / n_images for name, n in (("top1", self.n_top1), ("top5", self.n_top5))}
        return pd.DataFrame([{"n_images": n_images, **shares}])
