"""ImageNet-S: ImageNet's validation images with object masks, read from its published folders."""

import csv
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["IGNORED", "PUBLISHED_EXCLUSIONS", "ImageNetS", "decode_segmentation", "segmentation_ids"]

PUBLISHED_EXCLUSIONS = (
    "n04356056", "n04355933", "n04493381", "n02808440", "n03642806",
    "n03832673", "n04008634", "n03773504", "n03887697", "n15075141",
)  # fmt: skip
"""The classes that the paper's code leaves out: the five that ImageNet-S merges into others (sunglasses into sunglass,
tub into bathtub, laptop into notebook, projectile into missile, paper towel into toilet tissue), and these others."""

IGNORED = 1000
"""The segmentation's value where annotators were uncertain; 0 is everything outside the 919 classes."""

# ImageNet's classes that ImageNet-S lacks: those that cannot be segmented, and the five merged ones.
_NOT_SEGMENTED = """
    n02699494 n02776631 n02777292 n02788148 n02791270 n02807133 n02825657 n02837789 n02871525 n02877765
    n02894605 n02927161 n02966193 n02974003 n02977058 n02988304 n03000247 n03032252 n03042490 n03065424
    n03085013 n03089624 n03160309 n03180011 n03208938 n03216828 n03218198 n03220513 n03290653 n03388043
    n03457902 n03459775 n03461385 n03529860 n03637318 n03642806 n03661043 n03697007 n03710637 n03710721
    n03733281 n03871628 n03887697 n03899768 n03967562 n04008634 n04081281 n04111531 n04152593 n04200800
    n04239074 n04251144 n04264628 n04296562 n04356056 n04357314 n04372370 n04392985 n04443257 n04462240
    n04493381 n04501370 n04523525 n04592741 n04599235 n06359193 n06785654 n07248320 n07590611 n07836838
    n07892512 n07920052 n09193705 n09288635 n09332890 n09399592 n09421951 n09428293 n09468604 n09472597
    n10148035
"""


class ImageNetS(Dataset[tuple[str, int, Bool[Tensor, "height width"]]]):
    """Items are `(path, ImageNet class index, object mask)`; the mask shows the image's own class, at the image's size.

    ```
    ROOT/ImageNetS919/validation/n01440764/ILSVRC2012_val_00009111.JPEG
    ROOT/ImageNetS919/validation-segmentation/n01440764/ILSVRC2012_val_00009111.png
    ```

    A segmentation's pixels are R + 256 · G: the position of the class, from 1, among the 919 wnids in order. Pixels of
    another class, of none, or ignored ones (1000) do not belong to the object. Images are ordered by class, then by
    name. Reading an item whose segmentation is missing raises `FileNotFoundError`.
    """

    def __init__(
        self,
        root: str | Path,
        n: int | None = None,
        partition: str = "validation",
        exclude: Collection[str] = PUBLISHED_EXCLUSIONS,
        masks: bool = True,
        listing: str | Path | None = None,
    ):
        """List the images without reading them.

        Args:
            root: The folder that holds `ImageNetS919`, or that folder itself.
            n: Images per class: the first ones by name. As in the paper's code (where it is 5), classes with fewer
                images are left out. `None` for all images.
            partition: `"validation"`, or another folder that has a segmentation folder, such as `"train-semi"`.
            exclude: wnids of classes to leave out; by default those that the paper's code leaves out.
            masks: Whether items have masks; without, they are `(path, class index)`.
            listing: The paper's `validation_stim_info.csv`, or any CSV file with columns `imagenet_id` and
                `img_name`: take these images, in this order, instead of the first `n` of each class.

        Raises:
            FileNotFoundError: If a folder does not exist.
            ValueError: If a folder or listed image belongs to no ImageNet-S class, `exclude` has unknown wnids, or no
                image is left.
        """
        if n is not None and (n < 1 or listing is not None):
            raise ValueError(f"n, the number of images per class, must be at least 1 and without a listing, got n={n}")
        folder = Path(root) / "ImageNetS919" if (Path(root) / "ImageNetS919").is_dir() else Path(root)
        self.images, self.segmentations = folder / partition, folder / f"{partition}-segmentation"
        for needed in (self.images, self.segmentations) if masks else (self.images,):
            if not needed.is_dir():
                raise FileNotFoundError(
                    f"no folder '{needed}': expected ImageNet-S as it is published, with ImageNetS919/{partition} and "
                    f"ImageNetS919/{partition}-segmentation in '{root}'" + (" (or masks=False)" if masks else "")
                )
        unknown = sorted(wnid for wnid in exclude if wnid not in _imagenet_indices())
        if isinstance(exclude, str) or unknown:
            raise ValueError(f"exclude must be a collection of wnids such as 'n04356056', got {exclude!r}")
        self.partition, self.n, self.masks = partition, n, masks
        self.exclude = tuple(sorted(exclude))
        listed = self._found() if listing is None else _read_listing(Path(listing))
        self.samples = [(wnid, name) for wnid, name in listed if wnid not in self.exclude]
        if not self.samples:
            raise ValueError(f"no images in '{self.images}'" + (f" in a class of at least {n}" if n else ""))
        unknown = sorted({wnid for wnid, _ in self.samples} - segmentation_ids().keys())
        if unknown:
            raise ValueError(f"'{self.images}' has images of classes that ImageNet-S does not have: {unknown[:5]}")

    def _found(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for folder in sorted(self.images.iterdir()):
            if not (folder.is_dir() and re.fullmatch(r"n\d{8}", folder.name)):
                continue
            names = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in (".jpeg", ".jpg"))
            if self.n is None or len(names) >= self.n:
                found += [(folder.name, name) for name in names[: self.n]]
        return found

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[str, int, Bool[Tensor, "height width"]] | tuple[str, int]:
        wnid, name = self.samples[index]
        path, label = str(self.images / wnid / name), _imagenet_indices()[wnid]
        if not self.masks:
            return path, label
        return path, label, self.segmentation(index) == segmentation_ids()[wnid]

    def segmentation(self, index: int) -> Int[Tensor, "height width"]:
        """An image's segmentation: 0, a class from 1 to 919, or `IGNORED` at each pixel.

        Raises:
            FileNotFoundError: If the image has no segmentation.
        """
        wnid, name = self.samples[index]
        path = self.segmentations / wnid / f"{Path(name).stem}.png"
        try:
            with Image.open(path) as picture:
                return decode_segmentation(picture)
        except FileNotFoundError:
            raise FileNotFoundError(f"no segmentation at '{path}'") from None


def decode_segmentation(picture: Image.Image) -> Int[Tensor, "height width"]:
    """Class ids of a segmentation: R + 256 · G.

    Raises:
        ValueError: If the picture has no colours of 8 bits.

    >>> decode_segmentation(Image.new("RGB", (2, 1), (151, 3, 0)))
    tensor([[919, 919]])
    """
    if picture.mode not in ("RGB", "RGBA", "P"):
        raise ValueError(f"expected a segmentation as an RGB picture, got mode {picture.mode}: use the published file")
    pixels = np.asarray(picture.convert("RGB")).astype(np.int64)
    return torch.from_numpy(pixels[..., 0] + 256 * pixels[..., 1])


@cache
def segmentation_ids() -> dict[str, int]:
    """The number of each class in segmentations, 1 to 919, by wnid.

    >>> segmentation_ids()["n01440764"], len(segmentation_ids())
    (1, 919)
    """
    segmented = sorted(_imagenet_indices().keys() - _NOT_SEGMENTED.split())
    return {wnid: number for number, wnid in enumerate(segmented, start=1)}


@cache
def _imagenet_indices() -> dict[str, int]:
    from timm.data import ImageNetInfo

    return {wnid: index for index, wnid in enumerate(ImageNetInfo("imagenet-1k").label_names())}


def _read_listing(path: Path) -> list[tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"imagenet_id", "img_name"} <= set(rows.fieldnames or ()):
            raise ValueError(f"'{path}' must have columns imagenet_id and img_name, got {rows.fieldnames}")
        return [(row["imagenet_id"], row["img_name"]) for row in rows]
