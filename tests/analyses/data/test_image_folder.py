"""Folders of pictures: their classes by the model's names, and broken pictures."""

from pathlib import Path

import numpy as np
import pytest
import torchvision
from conftest import make_timm
from PIL import Image
from timm.data import ImageNetInfo

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
    assert ImageFolder(root, numbered_class_names(4)).samples == theirs.samples


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


def add_folders(root: Path, *names: str) -> Path:
    for name in names:
        add_picture(root, f"{name}/{name}.png")
    return root


@pytest.mark.parametrize("class_names", [tuple("abcdefghij") * 100, numbered_class_names(1000)])
def test_wnids_are_imagenets_classes_whatever_a_model_of_1000_classes_calls_them(
    tmp_path: Path, class_names: tuple[str, ...]
) -> None:
    add_folders(tmp_path, "n01440764", "n02123045")
    assert ImageFolder(tmp_path, class_names).class_to_idx == {"n01440764": 0, "n02123045": 281}


def test_wnids_of_imagenets_larger_subsets_are_known(tmp_path: Path) -> None:
    info = ImageNetInfo("imagenet-12k")
    wnids = [info.index_to_label_name(index) for index in (7, 4000)]
    found = ImageFolder(add_folders(tmp_path, *wnids), imagenet_class_names(11821)).class_to_idx
    assert found == {wnids[0]: 7, wnids[1]: 4000}


def test_wnids_that_are_the_models_class_names_are_looked_up_there(tmp_path: Path) -> None:
    add_folders(tmp_path, "n01440764", "n02123045")
    names = ["n02123045", "n01440764", *(f"other {index}" for index in range(998))]
    assert ImageFolder(tmp_path, names).class_to_idx == {"n01440764": 1, "n02123045": 0}


@pytest.mark.parametrize("class_names", [None, numbered_class_names(11), [f"name {i}" for i in range(11)]])
def test_numbers_are_class_indices(tmp_path: Path, class_names: list[str] | None) -> None:
    add_folders(tmp_path, "0", "2", "10")
    assert ImageFolder(tmp_path, class_names).class_to_idx == {"0": 0, "2": 2, "10": 10}


def test_numbers_that_are_the_models_class_names_are_looked_up_there(tmp_path: Path) -> None:
    assert ImageFolder(add_folders(tmp_path, "1", "3"), ["1", "2", "3"]).class_to_idx == {"1": 0, "3": 2}


def test_numbers_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    add_folders(tmp_path, "1", "2", "3")
    with pytest.raises(
        ValueError, match=r"folders \['3'\] are not class indices, the model has classes 0 to 2: rename"
    ):
        ImageFolder(tmp_path, numbered_class_names(3))
    assert list(ImageFolder(tmp_path, numbered_class_names(3), "sorted").class_to_idx.values()) == [0, 1, 2]


def test_the_classes_of_folders_can_be_given(root: Path) -> None:
    names = ["lion", "bear", "wolf", "owl", "elk"]
    assert ImageFolder(root, names, "sorted").class_to_idx == {"cat": 0, "dog": 1, "red_fox": 2, "zebra": 3}
    given = ["zebra", "", "dog", "cat", "red_fox"]
    expected = {"cat": 3, "dog": 2, "red_fox": 4, "zebra": 0}
    assert ImageFolder(root, names, given).class_to_idx == expected
    assert ImageFolder(root, classes=given).class_to_idx == expected


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("alphabetical", "expected classes='sorted' or a list with the folder of each class, got 'alphabetical'"),
        (["cat", "dog", "zebra"], "must name the folder of each of the 5 classes, got 3"),
        (["cat", "dog", "zebra", "cat", "elk"], r"folders \['cat', 'red_fox'\] are not exactly once among the 5 names"),
    ],
)
def test_invalid_classes_of_folders_are_refused(root: Path, classes: str | list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder(root, ["lion", "bear", "wolf", "owl", "elk"], classes)
    with pytest.raises(ValueError, match="4 folders for a model of 3 classes"):
        ImageFolder(root, numbered_class_names(3), "sorted")


def test_items_are_paths_with_labels(root: Path) -> None:
    assert ImageFolder(root)[0] == (str(root / "cat" / "a.png"), 0)


def test_invalid_folders_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder 'dog' is not a class of the model: .* rename the folders, or"):
        ImageFolder(root, ["cat", "red fox", "zebra"])
    with pytest.raises(ValueError, match=r"are the same class: \['cat', 'dog'\]"):
        ImageFolder(root, ["cat, dog", "red fox", "zebra"])
    for n_classes in (3, 9):
        with pytest.raises(ValueError, match=f"4 folders for a model of {n_classes} classes that have no names, so"):
            ImageFolder(root, numbered_class_names(n_classes))
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
