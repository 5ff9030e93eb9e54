"""CIFAR-100 from files in the published layout."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR100

from analyses.data.cifar import Cifar100


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten test images of three classes; torchvision is told their MD5 sums in the place of the real ones."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    names = [f"class {number}" for number in range(100)]
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3072), dtype=np.uint8)
    contents = {
        "test": {"data": pixels, "fine_labels": [7, 3, 7, 99, 3, 7, 7, 99, 3, 3]},
        "train": {"data": pixels[:2], "fine_labels": [5, 6]},
        "meta": {"fine_label_names": names},
    }
    sums = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": sums["meta"]})
    return tmp_path


def test_items_are_pictures_with_labels(root: Path) -> None:
    dataset, theirs = Cifar100(root), CIFAR100(str(root), train=False)
    assert len(dataset) == 10
    for index in range(10):
        picture, label = dataset[index]
        assert (np.asarray(picture) == np.asarray(theirs[index][0])).all()
        assert label == theirs[index][1]
    assert dataset.class_names[99] == "class 99"
    assert Cifar100(root, train=True).labels == [5, 6]


def test_n_takes_the_first_images_of_each_class(root: Path) -> None:
    dataset = Cifar100(root, n=2)
    assert dataset.labels == [7, 3, 7, 99, 3, 99]
    assert (np.asarray(dataset[5][0]) == np.asarray(Cifar100(root)[7][0])).all()
    with pytest.raises(ValueError, match="n, the number of images per class, must be at least 1, got 0"):
        Cifar100(root, n=0)


def test_missing_or_changed_files_are_refused(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no CIFAR-100 in '.*nowhere': expected the unpacked folder"):
        Cifar100(root / "nowhere")
    (root / "cifar-100-python" / "test").write_bytes(b"changed")
    with pytest.raises(FileNotFoundError, match="complete and unchanged"):
        Cifar100(root)
