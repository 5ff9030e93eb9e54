"""Folders of pictures: their classes by the model's names, and broken pictures."""

from pathlib import Path

import numpy as np
import pytest
import torchvision
from conftest import make_timm
from PIL import Image

from analyses.data.image_folder import ImageFolder
from analyses.sweep.run import sweep
from hooked_vit import HookedViT
from hooked_vit.class_names import imagenet_class_names, numbered_class_names


def add_picture(root: Path, name: str, mode: str = "RGB") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(name)).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add_picture(tmp_path, "cat/a.png")
    add_picture(tmp_path, "cat/deep/b.jpeg", "L")
    add_picture(tmp_path, "red_fox/c.jpeg", "CMYK")
    add_picture(tmp_path, "zebra/d.jpg")
    (tmp_path / "dog").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    return tmp_path


def labels(dataset: ImageFolder) -> dict[str, int]:
    return {Path(path).name: label for path, label in dataset.samples}


def test_folders_are_numbered_as_torchvision_does(root: Path) -> None:
    """An empty folder is a class, too."""
    assert labels(ImageFolder(root)) == {"a.png": 0, "b.jpeg": 0, "c.jpeg": 2, "d.jpg": 3}
    (root / ".hidden").rmdir()
    theirs = torchvision.datasets.ImageFolder(root, allow_empty=True)
    assert theirs.samples == ImageFolder(root).samples
    assert ImageFolder(root, numbered_class_names(9)).samples == theirs.samples


def test_folders_are_looked_up_among_the_models_names(root: Path) -> None:
    names = ["zebra", "house cat, cat", "dog", "wolf", "red fox"]
    assert labels(ImageFolder(root, names)) == {"a.png": 1, "b.jpeg": 1, "c.jpeg": 4, "d.jpg": 0}


def test_wnids_are_imagenets_classes_even_if_folders_are_missing(tmp_path: Path) -> None:
    add_picture(tmp_path, "n02123045/a.png")
    add_picture(tmp_path, "n15075141/b.png")
    assert labels(ImageFolder(tmp_path, imagenet_class_names(1000))) == {"a.png": 281, "b.png": 999}
    add_picture(tmp_path, "n99999999/c.png")
    with pytest.raises(ValueError, match=r"folders .'n99999999'. are not among ImageNet's 1000 classes"):
        ImageFolder(tmp_path, imagenet_class_names(1000))


def test_items_are_paths_with_labels(root: Path) -> None:
    assert ImageFolder(root)[0] == (str(root / "cat" / "a.png"), 0)


def test_invalid_folders_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder 'dog' is not a class of the model: .* Rename it, or"):
        ImageFolder(root, ["cat", "red fox", "zebra"])
    with pytest.raises(ValueError, match=r"are the same class: \['cat', 'dog'\]"):
        ImageFolder(root, ["cat, dog", "red fox", "zebra"])
    with pytest.raises(ValueError, match="4 folders for a model of 3 classes"):
        ImageFolder(root, numbered_class_names(3))
    with pytest.raises(FileNotFoundError, match=r"no folder '.*nowhere': expected one with a folder of pictures"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no folders in"):
        ImageFolder(tmp_path / "dog")
    (tmp_path / "other" / "class").mkdir(parents=True)
    with pytest.raises(ValueError, match="no pictures in the folders of"):
        ImageFolder(tmp_path / "other")


@pytest.mark.parametrize("ours", [True, False])
def test_a_sweep_accepts_our_folder_and_torchvisions(root: Path, ours: bool) -> None:
    truncated = add_picture(root, "zebra/e.jpeg")
    truncated.write_bytes(truncated.read_bytes()[:-300])
    (root / "zebra" / "f.jpeg").touch()
    model = HookedViT.from_timm(make_timm("cls"))
    dataset = ImageFolder(root) if ours else torchvision.datasets.ImageFolder(str(root), allow_empty=True)
    tables = sweep(model, dataset, [], batch_size=2)
    assert tables["accuracy"]["n_images"].item() == 4
    assert tables["skipped"]["index"].tolist() == [4, 5]
    assert "truncated" in tables["skipped"]["reason"][0]
    assert "cannot identify image" in tables["skipped"]["reason"][1]
