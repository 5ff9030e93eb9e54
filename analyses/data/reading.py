"""Batches of model inputs from a dataset's items, with the reasons why images could not be read."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from analyses.data.dataset import LabelledImages
from analyses.data.masks import as_mask, mask_like
from hooked_vit import HookedViTConfig
from hooked_vit.preprocessing import as_picture, check_finite, preprocess

__all__ = ["ItemReader", "ReadBatch"]

_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class ReadBatch:
    """The images at some indices of a dataset, on the CPU, and the images that could not be read.

    Attributes:
        n_asked: How many indices were requested.
        images: The model's inputs; `None` if no image could be read.
        labels: The class of each image.
        index: The index of each image in the dataset.
        object_mask: True on the object's pixels; `None` for a dataset without masks.
        failures: Index and reason of each image that is left out.
    """

    n_asked: int
    images: Float[Tensor, "batch channel height width"] | None
    labels: Int[Tensor, "batch"]
    index: Int[Tensor, "batch"]
    object_mask: Bool[Tensor, "batch height width"] | None
    failures: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class _Item:
    index: int
    image: Tensor
    label: int
    mask: Tensor | None


class ItemReader(Dataset[ReadBatch]):
    """Reads a dataset of `LabelledImages` in batches; itself a dataset, so that a DataLoader's workers can run it.

    A problem with one image (a missing or damaged file, NaN, a mask of another size) leaves that image out, or raises
    with `skip=False`. A problem with the dataset (items of another form, labels that the model does not have) always
    raises.
    """

    def __init__(
        self, dataset: LabelledImages, cfg: HookedViTConfig, data_config: dict[str, Any] | None, skip: bool = True
    ):
        self.dataset, self.cfg, self.data_config, self.skip = dataset, cfg, data_config, skip

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> ReadBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> ReadBatch:
        """The batch of these indices, in this order.

        Raises:
            ValueError: If an image cannot be read and `skip` is False, or a label is not a class of the model.
            TypeError: If an item is not `(image, label)` or `(image, label, mask)`, or has an image of another type.
        """
        items: list[_Item] = []
        failures: list[tuple[int, str]] = []
        for index, fetched in self._fetch(indices):
            result = fetched if isinstance(fetched, Exception) else self._read(index, fetched)
            if isinstance(result, _Item):
                items.append(result)
            elif self.skip:
                failures.append((index, _reason(result)))
            else:
                raise ValueError(
                    f"image {index} of the dataset cannot be read: {_reason(result)}. "
                    "on_error='skip' leaves such images out and lists them."
                ) from result
        masks = [item.mask for item in items if item.mask is not None]
        if masks and len(masks) < len(items):
            bare = next(item.index for item in items if item.mask is None)
            raise TypeError(f"item {bare} of the dataset has no mask, others have: give all of them one, or none")
        sizes = {tuple(item.image.shape) for item in items}
        if len(sizes) > 1:
            raise ValueError(f"the images of a batch must be of one size, got {sorted(sizes)}; batch_size=1 takes any")
        return ReadBatch(
            n_asked=len(indices),
            images=torch.stack([item.image for item in items]) if items else None,
            labels=torch.tensor([item.label for item in items], dtype=torch.long),
            index=torch.tensor([item.index for item in items], dtype=torch.long),
            object_mask=torch.stack(masks) if masks else None,
            failures=tuple(failures),
        )

    def _fetch(self, indices: Sequence[int]) -> list[tuple[int, Any]]:
        many = getattr(self.dataset, "__getitems__", None)
        if many is not None:
            try:
                return list(zip(indices, many(list(indices)), strict=True))
            except _UNREADABLE:
                pass  # read the items one by one to find which of them fail
        fetched: list[tuple[int, Any]] = []
        for index in indices:
            try:
                fetched.append((index, self.dataset[index]))
            except _UNREADABLE as error:
                fetched.append((index, error))
        return fetched

    def _read(self, index: int, item: Any) -> _Item | Exception:
        if not isinstance(item, tuple | list) or len(item) not in (2, 3):
            raise TypeError(
                f"item {index} of the dataset must be (image, label) or (image, label, mask), got {_kind(item)}: wrap "
                "the dataset in one whose items are"
            )
        label = self._label(index, item[1])
        is_input = isinstance(item[0], Tensor)
        if is_input and (item[0].ndim != 3 or not item[0].is_floating_point()):
            raise TypeError(
                f"item {index} of the dataset: a tensor must be the model's input, floating point [channel height "
                f"width], got {item[0].dtype} of shape {tuple(item[0].shape)}; give pictures as paths, PIL images or "
                "arrays, and they are preprocessed"
            )
        if not is_input and self.data_config is None:
            raise ValueError("this model does not know its preprocessing: give tensors, its inputs as they stand")
        if len(item) == 3 and item[2] is None:
            return ValueError("it has no object mask")
        try:
            image, mask = self._as_input(item[0]) if is_input else self._prepare(item[0])
            check_finite([image])
            return _Item(index, image, label, mask(item[2]) if len(item) == 3 else None)
        except _UNREADABLE as error:
            return error

    def _label(self, index: int, label: Any) -> int:
        whole = isinstance(label, Tensor) and label.ndim == 0 and not label.is_floating_point()
        if not whole and (isinstance(label, bool) or not isinstance(label, int | np.integer)):
            raise TypeError(f"item {index} of the dataset: a label must be a class index, got {_kind(label)}")
        if not 0 <= int(label) < self.cfg.n_classes:
            raise ValueError(
                f"item {index} of the dataset has label {int(label)}, the model has classes 0 to "
                f"{self.cfg.n_classes - 1}: its labels must be the model's class indices"
            )
        return int(label)

    def _as_input(self, image: Tensor) -> tuple[Tensor, Any]:
        def fitted(mask: Any) -> Tensor:
            return _checked_size(as_mask(mask), tuple(image.shape[1:]))

        return image.detach().cpu(), fitted

    def _prepare(self, image: Any) -> tuple[Tensor, Any]:
        picture = as_picture(image, upright=False)  # evaluations ignore EXIF orientation, and so do stored masks

        def fitted(mask: Any) -> Tensor:
            return mask_like(_checked_size(as_mask(mask), (picture.height, picture.width)), self.data_config or {})

        return preprocess(picture, self.cfg, self.data_config, upright=False)[0], fitted


def _checked_size(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(mask.shape) != size:
        raise ValueError(
            f"its mask is {mask.shape[0]} × {mask.shape[1]} pixels, the image {' × '.join(map(str, size))}"
        )
    return mask


def _reason(error: Exception) -> str:
    text = str(error).replace("image 0 holds", "it holds")
    return text if isinstance(error, ValueError | FileNotFoundError) else f"{type(error).__name__}: {text}"


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, dict):
        return f"dict with {sorted(map(str, value))[:5]}"
    if isinstance(value, Tensor):
        return f"{value.dtype} tensor of shape {tuple(value.shape)}"
    return type(value).__name__
