"""CIFAR-100, read from its published files."""

from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

__all__ = ["Cifar100"]


class Cifar100(Dataset[tuple[Image.Image, int]]):
    """Items are `(picture, class index)`, in the order of the published file.

    The folder holds `cifar-100-python`; torchvision checks the files' MD5 sums, since they are pickles.
    """

    def __init__(self, root: str | Path, n: int | None = None, train: bool = False, download: bool = False):
        """Read the pictures (150 MB for the 50,000 training images, 30 MB for the 10,000 test images).

        Args:
            root: The folder that holds `cifar-100-python`.
            n: Images per class, the first ones in the file, as in the paper's code (where it is 5); `None` for all.
            train: Whether to read the training images instead of the test images.
            download: Whether to download missing files.

        Raises:
            FileNotFoundError: If the files are missing or damaged.
        """
        from torchvision.datasets import CIFAR100

        if n is not None and n < 1:
            raise ValueError(f"n, the number of images per class, must be at least 1, got {n}")
        try:
            published = CIFAR100(str(root), train=train, download=download)
        except RuntimeError as error:
            raise FileNotFoundError(
                f"no CIFAR-100 in '{root}': expected the unpacked folder cifar-100-python in it, complete and "
                "unchanged; download=True downloads it"
            ) from error
        self.n, self.train = n, train
        self.class_names = tuple(published.classes)
        labels = [int(label) for label in published.targets]
        counts: dict[int, int] = {}
        kept: list[int] = []
        for position, label in enumerate(labels):
            counts[label] = counts.get(label, 0) + 1
            if n is None or counts[label] <= n:
                kept.append(position)
        self.labels = [labels[position] for position in kept]
        self.pixels = published.data[kept]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), self.labels[index]
