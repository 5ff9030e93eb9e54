"""Datasets by name, as on the command line, and the images of a model."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.data.image_folder import ImageFolder
from analyses.data.imagenet_s import ImageNetS
from analyses.data.open import images_for, open_dataset
from hooked_vit import HookedViT
from hooked_vit.class_names import numbered_class_names


def test_emoji_scenes_with_options() -> None:
    spec = "emoji-scenes:20?seed=5&objects=mixed&image_size=80&artists=noto,twemoji&background_strength=0.5"
    opened = open_dataset(spec)
    expected = EmojiScenes(20, 5, image_size=80, objects="mixed", artists=("noto", "twemoji"), background_strength=0.5)
    assert vars(opened) == vars(expected)
    assert vars(open_dataset("emoji-scenes:20?objects=2")) == vars(EmojiScenes(20, 0, objects=2))


def test_imagenet_s_with_options(tmp_path: Path) -> None:
    folder = tmp_path / "ImageNetS919" / "validation"
    for wnid in ("n01440764", "n04355933"):
        (folder / wnid).mkdir(parents=True)
        for name in "abc":
            (folder / wnid / f"{name}.JPEG").touch()
    opened = open_dataset(f"imagenet-s:{tmp_path}?n=2&masks=no&exclude=none")
    assert isinstance(opened, ImageNetS)
    assert len(opened) == 4
    assert opened.exclude == ()
    assert len(open_dataset(f"imagenet-s:{tmp_path}?masks=no&exclude=n01440764,n04356056")) == 3


def test_a_folder_gets_the_models_names(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "dog" / "a.png")
    opened = open_dataset(f"folder:{tmp_path}", ["cat", "dog"])
    assert isinstance(opened, ImageFolder)
    assert opened[0][1] == 1


def test_the_classes_of_folders_are_given_as_an_option(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / name / "x.png")
    spec = f"folder:{tmp_path / 'pictures'}?classes="
    assert [label for _, label in open_dataset(spec + "sorted", ["cat", "dog", "fox"])] == [0, 1]
    (tmp_path / "names.txt").write_text("b\nnone\na\n")
    assert [label for _, label in open_dataset(f"{spec}{tmp_path / 'names.txt'}", ["cat", "dog", "fox"])] == [2, 0]
    with pytest.raises(FileNotFoundError, match=r"no file 'absent\.txt': expected classes=sorted, or a file with one"):
        open_dataset(spec + "absent.txt", ["cat", "dog", "fox"])
    with pytest.raises(
        ValueError, match=r"on the command line folder:DIR\?classes=sorted, or folder:DIR\?classes=FILE"
    ):
        open_dataset(f"folder:{tmp_path / 'pictures'}", ["cat", "dog", "fox"])


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("emoji", "unknown kind of dataset 'emoji'.* Expected KIND:PATH, with one of emoji-scenes, imagenet-s, folder"),
        ("emoji-scene:3", "did you mean 'emoji-scenes'"),
        ("folder", "'folder' names no path: expected 'folder:PATH'"),
        ("folder:", "names no path"),
        ("emoji-scenes:many", "number of scenes: expected a whole number, got 'many'"),
        ("emoji-scenes:9?seed=x", "seed: expected a whole number, got 'x'"),
        ("emoji-scenes:9?sed=1&x=2", "'emoji-scenes' has no option 'sed', 'x': it has seed, objects, image_size"),
        ("emoji-scenes:9?objects=3", "expected objects=1, 2 or 'mixed', got 3"),
        ("cifar100:/nowhere?train=maybe", "train: expected yes or no, got 'maybe'"),
    ],
)
def test_an_invalid_name_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset(spec)


@pytest.mark.parametrize("spec", ["folder:/nowhere/at/all", "imagenet-s:/nowhere/at/all", "cifar100:/nowhere/at/all"])
def test_a_missing_folder_is_named(spec: str) -> None:
    with pytest.raises(FileNotFoundError, match="/nowhere/at/all"):
        open_dataset(spec)


def test_emoji_scenes_are_for_models_of_their_classes() -> None:
    assert len(open_dataset("emoji-scenes:3", EmojiScenes.class_names)) == 3
    with pytest.raises(ValueError, match="Emoji Scenes show none of this model's 2 classes: give other data, such as"):
        open_dataset("emoji-scenes:3", ["cat", "dog"])


@pytest.mark.parametrize(("kind", "n"), [("imagenet-s", 1000), ("cifar100", 100)])
def test_labels_of_other_classes_are_refused(kind: str, n: int, tmp_path: Path) -> None:
    """Their class indices would be other classes of the model."""
    with pytest.raises(ValueError, match=f"is labelled with {n} classes, this model has 7: give other data, such as"):
        open_dataset(f"{kind}:{tmp_path}", numbered_class_names(7))


def test_cifar_is_for_models_of_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("maple_tree", *(f"name {index}" for index in range(99)))
    monkeypatch.setattr("torchvision.datasets.CIFAR100", lambda *_, **__: published)
    published = SimpleNamespace(classes=list(names), targets=[3], data=np.zeros((1, 32, 32, 3), np.uint8))
    for class_names in (None, numbered_class_names(100), ("Maple tree", *map(str, range(99)))):
        assert len(open_dataset(f"cifar100:{tmp_path}", class_names)) == 1
    with pytest.raises(ValueError, match="CIFAR-100 shows none of this model's 100 classes: give other data"):
        open_dataset(f"cifar100:{tmp_path}", EmojiScenes.class_names)


def test_images_for_a_model_are_emoji_scenes_of_its_size() -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    scenes = images_for(model, n=5, seed=3)
    assert vars(scenes) == vars(EmojiScenes(5, 3, image_size=model.cfg.image_size[0]))


def test_images_for_a_model_from_given_data_ignore_the_number(tmp_path: Path) -> None:
    (tmp_path / "fox").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "fox" / "a.png")
    found = images_for(HookedViT.from_pretrained("emoji-vit"), n=40, data=f"folder:{tmp_path}")
    assert isinstance(found, ImageFolder)
    assert [label for _, label in found.samples] == [EmojiScenes.class_names.index("fox")]


def test_images_for_a_model_of_other_classes_need_data() -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    model.class_names = ("cat", "dog")
    with pytest.raises(ValueError, match="Emoji Scenes show none of this model's 2 classes"):
        images_for(model, n=3)
