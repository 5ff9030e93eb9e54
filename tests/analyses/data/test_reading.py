"""Items of every type become inputs; a problem with one image leaves it out, a problem with the dataset raises."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_timm
from PIL import Image

from analyses.data.emoji_scenes.scenes import EmojiScenes
from analyses.data.reading import ItemReader, ReadBatch
from hooked_vit import HookedViT


@pytest.fixture(scope="module")
def model() -> HookedViT:
    return HookedViT.from_timm(make_timm("cls"))


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)


def read(model: HookedViT, items: Sequence[Any], skip: bool = True) -> ReadBatch:
    return ItemReader(items, model.cfg, model.data_config, skip).__getitems__(range(len(items)))


def test_pictures_of_every_kind_are_preprocessed_and_tensors_are_not(
    model: HookedViT, pixels: np.ndarray, tmp_path: Path
) -> None:
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "picture.png")
    expected = model.preprocess(picture)[0]
    items = [(tmp_path / "picture.png", 0), (str(tmp_path / "picture.png"), 1), (picture, np.int64(2)),
             (pixels, torch.tensor(3)), (expected, 4), [expected.double(), 5]]  # fmt: skip
    batch = read(model, items)
    assert batch.images is not None
    assert all(torch.equal(image, expected) for image in batch.images.float())
    assert batch.labels.tolist() == batch.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.object_mask is None
    assert not batch.failures


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "I;16"])
def test_pictures_of_every_mode_can_be_read(model: HookedViT, pixels: np.ndarray, tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(pixels)
    picture = picture.convert("L").convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
    path = tmp_path / ("picture.jpeg" if mode in ("L", "CMYK") else "picture.png")
    picture.save(path)
    with Image.open(path) as saved:
        assert saved.mode == mode
    batch = read(model, [(path, 0)])
    assert batch.failures == ()
    assert torch.isfinite(batch.images).all()  # type: ignore[arg-type]


def test_values_without_a_known_range_are_left_out_and_16_bits_are_read(model: HookedViT, tmp_path: Path) -> None:
    deep = np.full((50, 60), 25700, dtype=np.uint16)
    floats = Image.fromarray(deep.astype(np.float32))
    floats.save(tmp_path / "floats.tiff")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    items = [(tmp_path / "floats.tiff", 0), (tmp_path / "deep.png", 0), (floats, 0), (deep, 0), (deep.astype(int), 0)]
    batch = read(model, items)
    assert batch.index.tolist() == [1, 3]
    assert [index for index, _ in batch.failures] == [0, 2, 4]
    assert all("the range of its values is not known" in reason for _, reason in batch.failures)
    grey = model.preprocess(np.full((50, 60), 100, dtype=np.uint8))[0]
    assert all(torch.equal(image, grey) for image in batch.images)  # type: ignore[union-attr]


def test_masks_are_cropped_like_their_pictures(model: HookedViT, pixels: np.ndarray) -> None:
    mask = np.zeros((50, 60), dtype=bool)
    mask[:, :30] = True
    batch = read(model, [(pixels, 0, mask), (Image.fromarray(pixels), 1, Image.fromarray(mask))])
    assert batch.object_mask is not None
    assert batch.object_mask.shape == (2, 32, 24)
    assert batch.object_mask[:, :, :12].all()
    assert not batch.object_mask[:, :, 12:].any()
    tensor = torch.zeros(3, 32, 24), 2, torch.eye(32, 24, dtype=torch.int64)
    assert torch.equal(read(model, [tensor]).object_mask[0], torch.eye(32, 24) > 0)  # type: ignore[index]


def test_a_batch_of_scenes_is_drawn_at_once() -> None:
    model, scenes = HookedViT.from_pretrained("emoji-vit"), EmojiScenes(9, seed=0)
    drawn: list[list[int]] = []

    class Counted(EmojiScenes):
        def __getitems__(self, indices):
            drawn.append(list(indices))
            return super().__getitems__(indices)

    batch = ItemReader(Counted(9, seed=0), model.cfg, model.data_config).__getitems__([4, 5, 7])
    assert drawn == [[4, 5, 7]]
    image, label, mask = scenes[5]
    assert torch.equal(batch.images[1], image)  # type: ignore[index]
    assert torch.equal(batch.object_mask[1], mask)  # type: ignore[index]
    assert batch.labels[1] == label
    assert batch.index.tolist() == [4, 5, 7]


def bad_files(folder: Path, pixels: np.ndarray) -> dict[str, tuple[Any, str]]:
    """Items that cannot be read, and why."""
    good = folder / "good.jpeg"
    Image.fromarray(pixels).save(good)
    (folder / "truncated.jpeg").write_bytes(good.read_bytes()[:-300])
    (folder / "text.jpeg").write_text("no picture")
    (folder / "empty.jpeg").touch()
    lazy = folder / "lazy.jpeg"
    lazy.write_bytes(good.read_bytes()[:-300])
    nan = torch.zeros(3, 32, 24)
    nan[1, 2, 3] = torch.inf
    mask = np.ones((50, 60), dtype=bool)
    return {
        "truncated": ((folder / "truncated.jpeg", 0), "truncated.jpeg' cannot be read as a picture: image file is tr"),
        "no picture": ((folder / "text.jpeg", 0), "text.jpeg' cannot be read as a picture: cannot identify"),
        "empty": ((folder / "empty.jpeg", 0), "empty.jpeg' cannot be read as a picture"),
        "missing": ((folder / "missing.jpeg", 0), "no picture at '"),
        "truncated, opened": ((Image.open(lazy), 0), "OSError: image file is truncated"),
        "infinity": ((nan, 0), "it holds NaN or infinity"),
        "floats beyond 1": ((pixels.astype(float), 0), "expected floats from 0 to 1"),
        "no mask": ((pixels, 0, None), "it has no object mask"),
        "another mask": ((pixels, 0, mask.T), "its mask is 60 × 50 pixels, the image 50 × 60"),
        "another mask of a tensor": (
            (torch.zeros(3, 32, 24), 0, mask),
            "its mask is 50 × 60 pixels, the image 32 × 24",
        ),
        "a mask of fractions": ((pixels, 0, mask / 2), "expected a mask of bool or whole numbers"),
    }


KINDS = [
    "truncated", "no picture", "empty", "missing", "truncated, opened", "infinity", "floats beyond 1", "no mask",
    "another mask", "another mask of a tensor", "a mask of fractions",
]  # fmt: skip


@pytest.mark.parametrize("what", KINDS)
def test_an_image_that_cannot_be_read_is_left_out_with_its_reason(
    model: HookedViT, pixels: np.ndarray, tmp_path: Path, what: str
) -> None:
    item, reason = bad_files(tmp_path, pixels)[what]
    good = (pixels, 6, np.ones((50, 60), dtype=bool)) if len(item) == 3 else (pixels, 6)
    batch = read(model, [good, item, good])
    assert batch.index.tolist() == [0, 2]
    ((place, found),) = batch.failures
    assert place == 1
    assert reason in found
    alone = read(model, [item])
    assert alone.images is None
    assert alone.n_asked == 1
    with pytest.raises(ValueError, match=r"image 0 of the dataset cannot be read: .*on_error='skip'"):
        read(model, [bad_files(tmp_path, pixels)[what][0]], skip=False)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([torch.zeros(3, 32, 24)], "item 0 of the dataset must be .* got torch.float32 tensor of shape"),
        ([{"image": 1, "label": 2}], r"must be .* got dict with \['image', 'label'\]: wrap the dataset"),
        ([(1, 2, 3, 4)], "got tuple of 4"),
        ([(torch.zeros(3, 32, 24), 7)], "item 0 of the dataset has label 7, the model has classes 0 to 6"),
        ([(torch.zeros(3, 32, 24), -1)], "has label -1"),
        ([(torch.zeros(3, 32, 24), "cat")], "a label must be a class index, got str"),
        ([(torch.zeros(3, 32, 24), 0.5)], "a label must be a class index, got float"),
        ([(torch.zeros(3, 32, 24, dtype=torch.uint8), 0)], "a tensor must be the model's input, floating point"),
        ([(torch.zeros(1, 3, 32, 24), 0)], r"got torch.float32 of shape \(1, 3, 32, 24\)"),
        ([(b"bytes", 0)], "expected a path, a PIL image or an array, got bytes"),
        ([(torch.zeros(3, 32, 24), 0), (torch.zeros(3, 16, 16), 0)], "the images of a batch must be of one size"),
        (
            [(torch.zeros(3, 2, 2), 0), (torch.zeros(3, 2, 2), 0, torch.ones(2, 2, dtype=torch.bool))],
            "item 0 of the dataset has no mask, others have",
        ),
    ],
)
def test_problems_with_the_dataset_always_raise(model: HookedViT, items: list, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        read(model, items)


def test_pictures_need_a_model_that_knows_its_preprocessing(model: HookedViT, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="this model does not know its preprocessing: give tensors"):
        ItemReader([(pixels, 0)], model.cfg, None).__getitems__([0])


def test_a_broken_item_does_not_lose_the_rest_of_its_batch(model: HookedViT) -> None:
    class Broken(EmojiScenes):
        def __getitems__(self, indices):
            if 3 in indices:
                raise OSError("disk")
            return super().__getitems__(indices)

    emoji_vit = HookedViT.from_pretrained("emoji-vit")
    batch = ItemReader(Broken(5, seed=0), emoji_vit.cfg, emoji_vit.data_config).__getitems__([2, 3, 4])
    assert batch.index.tolist() == [2, 4]
    assert batch.failures == ((3, "OSError: disk"),)
