"""Pictures in one folder per class, and the model's class for each folder."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch.utils.data import Dataset

from hooked_vit.class_names import find_class, numbered_class_names, ordered_class_names

__all__ = ["ImageFolder"]

_REMEDY = (
    "rename the folders, or pass classes='sorted' to number them in alphabetical order, or classes=[...] with the "
    "folder of each class in order (on the command line folder:DIR?classes=sorted, or folder:DIR?classes=FILE with one "
    "folder name per line)"
)


class ImageFolder(Dataset[tuple[str, int]]):
    """Items are `(path, label)`: the pictures that torchvision's `ImageFolder` finds, with the model's labels.

    torchvision numbers the folders that it finds, so a missing folder shifts all later labels. Here a folder is
    matched with a class by what its name means, and the first of these rules that fits holds for all folders:

    1. The names of the model's classes, with `_` and `-` read as spaces.
    2. Wnids (`n01440764`), if the model has as many classes as ImageNet (1000) or one of timm's larger subsets.
    3. Whole numbers (`0`, `2`, `10`): class indices.
    4. For a model whose classes have no names: alphabetical order, if there are as many folders as classes.

    Anything else is refused. Without `class_names`, only rule 3 applies, and other folders are numbered in alphabetical
    order, as torchvision does. A folder may be empty.
    """

    def __init__(
        self,
        root: str | Path,
        class_names: Sequence[str] | None = None,
        classes: Literal["sorted"] | Sequence[str] | None = None,
    ):
        """List the pictures.

        Args:
            root: The folder of folders.
            class_names: The model's class names, `model.class_names`.
            classes: Which folder is which class, whatever the folders' names mean: `"sorted"` numbers the folders in
                alphabetical order; a list has the name of the folder of each class, in the order of the classes.

        Raises:
            FileNotFoundError: If the folder does not exist, or has no folders in it.
            ValueError: If a folder is not a class of the model, nothing shows which folder is which class, two folders
                are the same class, or there is no picture.
        """
        from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

        if not Path(root).is_dir():
            raise FileNotFoundError(f"no folder '{root}': expected one with a folder of pictures for each class")
        folders = sorted(entry.name for entry in Path(root).iterdir() if entry.is_dir())
        folders = [name for name in folders if not name.startswith(".")]
        if not folders:
            raise FileNotFoundError(f"no folders in '{root}': expected one for each class")
        names = None if class_names is None else ordered_class_names(class_names)
        labels = _labels(folders, names) if classes is None else _given_labels(folders, names, classes)
        n_folders = Counter(labels)
        repeated = [name for name, label in zip(folders, labels, strict=True) if n_folders[label] > 1]
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


def _given_labels(folders: list[str], class_names: tuple[str, ...] | None, classes: str | Sequence[str]) -> list[int]:
    if isinstance(classes, str):
        if classes != "sorted":
            raise ValueError(f"expected classes='sorted' or a list with the folder of each class, got {classes!r}")
        if class_names is not None and len(folders) > len(class_names):
            raise ValueError(f"{len(folders)} folders for a model of {len(class_names)} classes")
        return list(range(len(folders)))
    if class_names is not None and len(classes) != len(class_names):
        raise ValueError(f"classes must name the folder of each of the {len(class_names)} classes, got {len(classes)}")
    index = {name: label for label, name in enumerate(classes)}
    wrong = [name for name in folders if list(classes).count(name) != 1]
    if wrong:
        raise ValueError(f"folders {wrong[:5]} are not exactly once among the {len(classes)} names in classes")
    return [index[name] for name in folders]


def _labels(folders: list[str], class_names: tuple[str, ...] | None) -> list[int]:
    are_numbers = all(re.fullmatch(r"[0-9]+", name) for name in folders)
    if class_names is None:
        return [int(name) for name in folders] if are_numbers else list(range(len(folders)))
    n_classes = len(class_names)
    known = {part.strip().casefold() for name in class_names for part in (name, *name.split(","))}
    if any(spelling.casefold() in known for name in folders for spelling in _spellings(name)):
        return [_label_by_name(name, class_names) for name in folders]
    wnids = _wnids(n_classes) if all(re.fullmatch(r"n\d{8}", name) for name in folders) else None
    if wnids is not None:
        unknown = [name for name in folders if name not in wnids]
        if unknown:
            raise ValueError(f"folders {unknown[:5]} are not among ImageNet's {n_classes} classes: {_REMEDY}")
        return [wnids[name] for name in folders]
    if are_numbers:
        outside = [name for name in folders if int(name) >= n_classes]
        if outside:
            raise ValueError(
                f"folders {outside[:5]} are not class indices, the model has classes 0 to {n_classes - 1}: {_REMEDY}"
            )
        return [int(name) for name in folders]
    if class_names != numbered_class_names(n_classes):
        return [_label_by_name(name, class_names) for name in folders]
    if len(folders) != n_classes:
        raise ValueError(
            f"{len(folders)} folders for a model of {n_classes} classes that have no names, so nothing shows which "
            f"folder is which class: {_REMEDY}"
        )
    return list(range(n_classes))


def _wnids(n_classes: int) -> dict[str, int] | None:
    """The class index of each wnid, for ImageNet or one of timm's subsets of this size."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": n_classes})
    return None if subset is None else {wnid: index for index, wnid in enumerate(ImageNetInfo(subset).label_names())}


def _spellings(folder: str) -> tuple[str, str]:
    return folder, re.sub(r"[_-]+", " ", folder).strip()


def _label_by_name(folder: str, class_names: tuple[str, ...]) -> int:
    problem = None
    for name in _spellings(folder):
        try:
            return find_class(name, class_names)
        except ValueError as error:
            problem = error
    raise ValueError(f"folder '{folder}' is not a class of the model: {problem}; {_REMEDY}")
