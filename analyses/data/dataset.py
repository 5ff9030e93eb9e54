"""The dataset protocol: a length and, by index, items (image, label) or (image, label, object mask)."""

from typing import Any, Protocol, runtime_checkable

__all__ = ["LabelledImages"]


@runtime_checkable
class LabelledImages(Protocol):
    """Any map-style torch dataset, or a plain list, whose items are `(image, label)` or `(image, label, mask)`.

    - `image` is a picture (a path, a PIL image, or a uint8 array [height width channel]), to which the model's
      preprocessing is applied; or a floating-point tensor [channel height width], which is the model's input and is
      not changed.
    - `label` is the class index of the image among the model's classes.
    - `mask` is True (or any whole number but 0) on the pixels of the object: a bool or whole-number tensor or array
      [height width], or a PIL image of one channel, of the same size as its image. The mask of a picture is resized
      and cropped like the picture (see `mask_like`); that of a tensor is not changed.

    Either all items have a mask, or none. An item depends only on its index: anything random is drawn from the index.
    Reading an item may raise `OSError` or `ValueError` if a file is missing or damaged; such an image can be skipped.
    A dataset with PyTorch's `__getitems__(indices)` is read in batches.

    >>> isinstance([("cat.png", 281)], LabelledImages)
    True
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, ...]: ...
