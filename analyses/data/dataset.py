"""What a dataset is here: a length and, by index, items (image, label) or (image, label, object mask)."""

from typing import Any, Protocol, runtime_checkable

__all__ = ["LabelledImages"]


@runtime_checkable
class LabelledImages(Protocol):
    """Any map-style torch dataset, or a plain list, whose items are `(image, label)` or `(image, label, mask)`.

    - `image` is a picture (a path, a PIL image, or a uint8 array [height width channel]): the model's own
      preprocessing makes its input of it. Or it is a floating-point tensor [channel height width]: the model's
      input as it stands, which nothing is done to.
    - `label` is the index of the image's class among the model's.
    - `mask` is True (or any whole number but 0) on the pixels of the object: a bool or whole-number tensor or array
      [height width], or a PIL image of one channel, as large as its image. The mask of a picture goes through the
      picture's resizing and cropping (see `mask_like`); that of a tensor is taken as it stands.

    All items have a mask, or none has. An item depends on its index alone: whatever is drawn at random is drawn from
    the index. Reading an item may raise `OSError` or `ValueError`, for a file that is missing or damaged: such an
    image can be skipped. A dataset that has `__getitems__(indices)`, as PyTorch calls it, is read by the batch.

    >>> isinstance([("cat.png", 281)], LabelledImages)
    True
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, ...]: ...
