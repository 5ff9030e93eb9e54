"""Pictures in one folder per class, and the model's class for each folder."""

import re
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset

from hooked_vit.class_names import find_class, imagenet_class_names, numbered_class_names

__all__ = ["ImageFolder"]


class ImageFolder(Dataset[tuple[str, int]]):
    """Items are `(path, label)`: the pictures that torchvision's `ImageFolder` finds, with the model's labels.

    torchvision numbers the folders that it finds, so a missing folder shifts all later labels. Given the model's class
    names, the folders are looked up among them: by wnid (`n01440764`) for ImageNet's 1000 classes, else by name, with
    `_` and `-` read as spaces. For a model whose classes have no names, or without `class_names`, the folders are
    numbered in order, as torchvision does. A folder may be empty.
    """

    def __init__(self, root: str | Path, class_names: Sequence[str] | None = None):
        """List the pictures.

        Args:
            root: The folder of folders.
            class_names: The model's class names, `model.class_names`.

        Raises:
            FileNotFoundError: If the folder does not exist, or has no folders in it.
            ValueError: If a folder is not a class of the model, two folders are the same class, or there is no picture.
        """
        from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

        if not Path(root).is_dir():
            raise FileNotFoundError(f"no folder '{root}': expected one with a folder of pictures for each class")
        folders = sorted(entry.name for entry in Path(root).iterdir() if entry.is_dir())
        folders = [name for name in folders if not name.startswith(".")]
        if not folders:
            raise FileNotFoundError(f"no folders in '{root}': expected one for each class")
        labels = _labels(folders, None if class_names is None else tuple(class_names))
        repeated = [name for name, label in zip(folders, labels, strict=True) if labels.count(label) > 1]
        if repeated:
            raise ValueError(f"folders of '{root}' are the same class: {repeated}")
        self.class_to_idx = dict(zip(folders, labels, strict=True))
        self.samples = make_dataset(str(root), self.class_to_idx, IMG_EXTENSIONS, allow_empty=True)
        if not self.samples:
            raise ValueError(f"no pictures in the folders of '{root}'")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self.samples[index]


def _labels(folders: list[str], class_names: tuple[str, ...] | None) -> list[int]:
    if class_names is None:
        return list(range(len(folders)))
    n_classes = len(class_names)
    if class_names == imagenet_class_names(1000) and all(re.fullmatch(r"n\d{8}", name) for name in folders):
        from timm.data import ImageNetInfo

        wnids = ImageNetInfo("imagenet-1k").label_names()
        unknown = [name for name in folders if name not in wnids]
        if unknown:
            raise ValueError(f"folders {unknown[:5]} are not among ImageNet's 1000 classes")
        return [wnids.index(name) for name in folders]
    if class_names == numbered_class_names(n_classes):
        if len(folders) > n_classes:
            raise ValueError(f"{len(folders)} folders for a model of {n_classes} classes")
        return list(range(len(folders)))
    return [_label_by_name(name, class_names) for name in folders]


def _label_by_name(folder: str, class_names: tuple[str, ...]) -> int:
    for name in (folder, re.sub(r"[_-]+", " ", folder)):
        try:
            return find_class(name, class_names)
        except ValueError as error:
            problem = error
    raise ValueError(
        f"folder '{folder}' is not a class of the model: {problem}. Rename it, or omit class_names to number the "
        "folders in order"
    )
