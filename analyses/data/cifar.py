"""CIFAR-100 from the files in which it is published."""

from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

__all__ = ["Cifar100"]


class Cifar100(Dataset[tuple[Image.Image, int]]):
    """Items are `(picture, class index)`, in the order of the published file.

    The folder holds `cifar-100-python`; torchvision checks the files' MD5 sums, since they are pickles.
    """

    def __init__(self, root: str | Path, n: int | None = None, train: bool = False, download: bool = False):
        """Read the pictures (150 MB for the 50,000 to train on, 30 MB for the 10,000 to test on).

        Args:
            root: The folder that holds `cifar-100-python`.
            n: Images of each class, the first ones in the file, as in the paper's code (where it is 5); `None`: all.
            train: The images to train on instead of those to test on.
            download: Fetch the files if they are not there.

        Raises:
            FileNotFoundError: If the files are missing or damaged.
        """
        from torchvision.datasets import CIFAR100

        if n is not None and n < 1:
            raise ValueError(f"expected n images of each class, 1 or more, got {n}")
        try:
            published = CIFAR100(str(root), train=train, download=download)
        except RuntimeError as error:
            raise FileNotFoundError(
                f"no CIFAR-100 in '{root}': expected the unpacked folder cifar-100-python in it, whole and unchanged; "
                "download=True fetches it"
            ) from error
        self.n, self.train = n, train
        self.class_names = tuple(published.classes)
        labels = [int(label) for label in published.targets]
        seen: dict[int, int] = {}
        kept: list[int] = []
        for position, label in enumerate(labels):
            seen[label] = seen.get(label, 0) + 1
            if n is None or seen[label] <= n:
                kept.append(position)
        self.labels = [labels[position] for position in kept]
        self.pixels = published.data[kept]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), self.labels[index]
