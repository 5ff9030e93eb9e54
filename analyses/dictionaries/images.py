"""A dataset as batches on the model's device, for what reads it outside a sweep."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from analyses.analysis.base import AnalysisBatch
from analyses.data.dataset import LabelledImages
from analyses.data.reading import ItemReader
from analyses.progress import progress_bar
from analyses.sweep.run import run_batch
from hooked_vit import HookedViT

__all__ = ["image_batches", "images_of"]


def image_batches(
    model: HookedViT,
    dataset: LabelledImages,
    names: Sequence[str] = (),
    *,
    batch_size: int = 32,
    limit: int | None = None,
    progress: bool | None = None,
    skip: bool = False,
) -> Iterator[AnalysisBatch]:
    """Batches of a dataset in its order, with these hook points in their cache.

    Raises:
        ValueError: If there is no image, an image cannot be read (unless `skip` leaves these out), or a number is not
            positive.

    >>> from analyses.data import EmojiScenes
    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> [len(batch.labels) for batch in image_batches(model, EmojiScenes(5, seed=0), batch_size=2, progress=False)]
    [2, 2, 1]
    """
    n_images = len(dataset) if limit is None else min(len(dataset), limit)
    if n_images < 1 or batch_size < 1:
        raise ValueError(f"expected at least one image and a batch size of at least 1, got {n_images} and {batch_size}")
    reader = ItemReader(dataset, model.cfg, model.data_config, skip=skip)
    with progress_bar(n_images, show=progress) as advance:
        for start in range(0, n_images, batch_size):
            index = range(start, min(start + batch_size, n_images))
            read = reader.__getitems__(index)
            if read.images is not None:
                yield run_batch(model, list(names), read)
            advance(len(index))


def images_of(model: HookedViT, dataset: LabelledImages, index: Sequence[int]) -> Tensor:
    """Some images of a dataset, as the model's input: [image channel height width].

    Raises:
        ValueError: If an image cannot be read.
    """
    read = ItemReader(dataset, model.cfg, model.data_config, skip=False).__getitems__([int(i) for i in index])
    assert read.images is not None
    return read.images.to(model.embed.weight)
