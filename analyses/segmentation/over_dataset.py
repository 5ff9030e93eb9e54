"""Over a dataset with masks: the patches' top class as a segmentation, after every block."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from analyses.analysis.base import Analysis, AnalysisBatch
from analyses.linear_probe.ridge import RidgeProbe
from analyses.projection import Lens, stream_names
from analyses.segmentation.measures import ClassPixels, mean_iou, patch_pixels
from analyses.statistics.intervals import Interval, Resampling
from hooked_vit import HookedViTConfig

__all__ = ["Segmentation"]

_N_GROUPS = 64
_PREDICTED = {"mean_iou": 1, "mean_iou_on_objects": 2}  # where `class_pixels` counts the predicted pixels
_COLUMNS = ["layer", "reader", "metric", "value", "low", "high", "n_images", "n_classes"]


class Segmentation(Analysis):
    """How well the patches' top class segments the object, block by block (the paper's other vision tasks).

    Each pixel has the top class of its patch in the projection of `resid_post`; with a linear head, also the class with
    the largest output of that head. `compute` has one row per `layer`, `reader` (`class_embeddings`, which are
    prototypes in a model made with them; `linear_head`) and `metric`, in percent:

    - `pixel_accuracy`: object pixels that have the object's class, over all images.
    - `object_iou`: in each image, the overlap of the object with the pixels of its class, divided by their union;
      the mean over images.
    - `mean_iou`: intersection over union of each class over the whole dataset, the mean over classes that it shows.
      A class on background counts against it; `mean_iou_on_objects` leaves background out.

    The first two have bootstrap intervals over images. Those of the others are over 64 groups of images, into which a
    hash of their index divides them: a class's pixels cannot be kept for every image. Images without a mask, or with
    an empty one, are not counted; without masks there are no rows. The control is the same for the model freshly
    initialised.

    >>> from hooked_vit import HookedViT
    >>> model, analysis = HookedViT.from_pretrained("emoji-vit"), Segmentation()
    >>> logits, cache = model.run_with_cache(torch.zeros(2, 3, 64, 64), names_filter=analysis.names(model.cfg))
    >>> mask = torch.arange(64).expand(2, 64, 64) < 20
    >>> analysis.update(AnalysisBatch(model, cache, logits, torch.tensor([3, 14]), torch.arange(2), mask))
    >>> sorted(set(analysis.compute()["metric"]))
    ['mean_iou', 'mean_iou_on_objects', 'object_iou', 'pixel_accuracy']
    """

    index: list[Tensor]
    hits: list[Tensor]  # [image reader layer]
    union: list[Tensor]  # [image reader layer]
    object_pixels: list[Tensor]  # [image]
    class_pixels: Any  # [count reader layer image_group·n_classes]: hits, predicted, predicted on objects, target

    def __init__(self, head: RidgeProbe | None = None, resampling: Resampling = Resampling(), lens: Lens | None = None):
        """Configure the analysis.

        Args:
            head: A linear head on patches with one probe per layer, `fit_patch_head(model, other_images)`.
            resampling: The bootstrap intervals.
            lens: As for `project`.

        Raises:
            ValueError: If the head has other axes than one for the layers.
        """
        super().__init__()
        if head is not None and head.weight.ndim != 3:
            raise ValueError(f"head must have one probe per layer, got weights of shape {tuple(head.weight.shape)}")
        self.head, self.resampling, self.lens = head, resampling, lens
        self.readers = ("class_embeddings",) if head is None else ("class_embeddings", "linear_head")
        for name in ("index", "hits", "union", "object_pixels"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("class_pixels", torch.tensor(0), dist_reduce_fx="sum")

    def names(self, cfg: HookedViTConfig) -> list[str]:
        """The stream that leaves each block."""
        return stream_names(cfg, "resid_post")

    def update(self, batch: AnalysisBatch) -> None:
        """Segment a batch, and count pixels."""
        model, layout = batch.model, batch.model.token_layout
        if batch.object_mask is None:
            batch_mask = torch.zeros(len(batch.labels), 1, 1, dtype=torch.bool, device=batch.labels.device)
        else:
            batch_mask = batch.object_mask.to(batch.labels.device)
        counted = batch_mask.flatten(1).any(dim=1)
        labels, mask = batch.labels[counted], batch_mask[counted]
        n_readers, n_layers, n_classes = len(self.readers), model.cfg.n_layers, model.cfg.n_classes
        if not self.class_pixels.ndim:
            of_groups = 4, n_readers, n_layers, _N_GROUPS * n_classes
            self.class_pixels = torch.zeros(of_groups, dtype=torch.long, device=self.device)
        pixels = self.class_pixels
        first = (n_classes * image_groups(batch.index.to(labels.device)[counted])).to(pixels.device)
        hits = torch.zeros(len(labels), n_readers, n_layers, dtype=torch.long, device=labels.device)
        union = torch.zeros_like(hits)
        inside = torch.zeros(0, dtype=torch.long, device=labels.device)
        if len(labels):
            on_object, every = patch_pixels(mask, layout.grid)
            every, inside = every.expand_as(on_object), on_object.sum(dim=1)
            for r, reader in enumerate(self.readers):
                for layer in range(n_layers):
                    top = self._top_classes(batch, reader, layer)[counted]
                    right = top == labels[:, None]
                    hits[:, r, layer] = (on_object * right).sum(dim=1)
                    union[:, r, layer] = inside + (every * right).sum(dim=1) - hits[:, r, layer]
                    shown = first + labels.to(first.device)
                    segmented = (first[:, None] + top.to(first.device)).flatten()
                    pixels[0, r, layer].index_add_(0, shown, hits[:, r, layer].to(first.device))
                    pixels[1, r, layer].index_add_(0, segmented, every.flatten().to(first.device))
                    pixels[2, r, layer].index_add_(0, segmented, on_object.flatten().to(first.device))
                    pixels[3, r, layer].index_add_(0, shown, inside.to(first.device))
        self.index.append(batch.index[counted].to(self.device))
        self.hits.append(hits.to(self.device))
        self.union.append(union.to(self.device))
        self.object_pixels.append(inside.to(self.device))

    def _top_classes(self, batch: AnalysisBatch, reader: str, layer: int) -> Tensor:
        """[batch patch]"""
        patches = batch.model.token_layout.patches
        if reader == "class_embeddings":
            projection = batch.projection("resid_post", lens=self.lens)
            return projection.top_classes[layer, :, patches, 0].to(batch.labels.device)
        assert self.head is not None
        stream = batch.cache["resid_post", layer][:, patches]
        head = self.head[layer]
        return (stream @ head.weight.to(stream) + head.bias.to(stream)).argmax(dim=-1)

    def compute(self) -> pd.DataFrame:
        """One row per layer, reader and metric.

        Raises:
            ValueError: If no image was seen.
        """
        hits, union, inside = self.by_image("hits", "union", "object_pixels")
        if not len(hits):
            return pd.DataFrame(columns=_COLUMNS)
        object_pixels = np.broadcast_to(inside[:, None, None], hits.shape)
        intervals = {
            "pixel_accuracy": self.resampling.ratio(hits.astype(np.float64), object_pixels),
            "object_iou": self.resampling.interval(hits / union),
        }
        grouped = "count reader layer (group c) -> group count reader layer c"
        by_group = rearrange(self.class_pixels.cpu(), grouped, group=_N_GROUPS)
        by_group = by_group[by_group.flatten(1).any(dim=1)]
        n_shown = int((by_group.sum(dim=0)[3, 0, 0] > 0).sum())
        rows = []
        for r, reader in enumerate(self.readers):
            for layer in range(hits.shape[2]):
                row = {"layer": layer, "reader": reader, "n_images": len(hits), "n_classes": n_shown}
                for metric, interval in intervals.items():
                    rows.append({**row, "metric": metric, **_percent(interval, (r, layer))})
                for metric, predicted in _PREDICTED.items():
                    counts = by_group[:, [0, predicted, 3], r, layer].numpy()
                    interval = self.resampling.of_sums(counts, _mean_iou_of_counts)
                    rows.append({**row, "metric": metric, **_percent(interval, ())})
        return pd.DataFrame(rows).reindex(columns=_COLUMNS)


def image_groups(index: Int[Tensor, "image"]) -> Int[Tensor, "image"]:
    """Which of the 64 groups each image belongs to, by its index in the dataset.

    Fibonacci hashing spreads any run of indices evenly, however the dataset is sorted.
    """
    return ((index * 2654435769) % 2**32) // (2**32 // _N_GROUPS)


def _mean_iou_of_counts(counts: np.ndarray) -> np.ndarray:
    """`mean_iou` of counts [resample count n_classes]: hits, predicted, target."""
    hits, predicted, target = torch.from_numpy(counts).long().unbind(dim=1)
    return mean_iou(ClassPixels(hits, predicted, target)).double().numpy()


def _percent(interval: Interval, at: tuple[int, ...]) -> dict[str, float]:
    numbers = {"value": interval.estimate, "low": interval.low, "high": interval.high}
    return {name: 100 * float(number[at]) for name, number in numbers.items()}
