"""Perturbed images from another dataset: backgrounds that were swapped, corruptions that are stored on disk."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from analyses.analysis.base import AnalysisBatch
from analyses.data.dataset import LabelledImages
from analyses.data.reading import ItemReader

__all__ = ["FromDataset"]


@dataclass(frozen=True)
class FromDataset:
    """Each image's counterpart in another dataset, at the same index.

    `FromDataset(scenes.swap_background())` shows the objects of Emoji Scenes on other backgrounds, with every opaque
    pixel of the objects unchanged; a dataset of ImageNet-C's files in the order of the clean ones works, too.

    Attributes:
        dataset: Items as for a sweep. Item i is item i of the sweep's dataset, perturbed, with the same label.
        moves_pixels: Whether the object is elsewhere in it, so that object masks do not fit.
    """

    dataset: LabelledImages
    moves_pixels: bool = False

    def __call__(self, batch: AnalysisBatch) -> Float[Tensor, "batch channel height width"]:
        """The counterparts of a batch's images.

        Raises:
            ValueError: If the dataset has no such item, the item cannot be read, or it has another label or size.
        """
        assert batch.images is not None
        index = batch.index.tolist()
        if max(index) >= len(self.dataset):
            raise ValueError(
                f"the perturbed dataset has {len(self.dataset)} items, and image {max(index)} has no counterpart: it "
                "must have an item for each image of the sweep's dataset"
            )
        read = ItemReader(self.dataset, batch.model.cfg, batch.model.data_config, skip=False).__getitems__(index)
        assert read.images is not None
        other = read.labels != batch.labels.cpu()
        if other.any():
            at = int(other.nonzero()[0])
            raise ValueError(
                f"item {index[at]} of the perturbed dataset has label {int(read.labels[at])}, the image has "
                f"{int(batch.labels[at])}: both datasets must hold the same images in the same order"
            )
        if read.images.shape != batch.images.shape:
            raise ValueError(
                f"the perturbed dataset has images of shape {tuple(read.images.shape[1:])}, the sweep's of "
                f"{tuple(batch.images.shape[1:])}: they must have the same size"
            )
        return read.images.to(batch.images)
