"""ImageNet-S in its published layout, with a tiny copy that has the faults of real copies."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_timm
from PIL import Image

from analyses.data.imagenet_s import IGNORED, PUBLISHED_EXCLUSIONS, ImageNetS, decode_segmentation, segmentation_ids
from analyses.sweep.run import sweep
from hooked_vit import HookedViT

TENCH, COCK, TABBY, VOLCANO_NEIGHBOUR = "n01440764", "n01514668", "n02123045", "n13133613"
LABELS = {TENCH: 0, COCK: 7, TABBY: 281, VOLCANO_NEIGHBOUR: 998}


def encode(ids: np.ndarray) -> Image.Image:
    """As published: R + 256 · G."""
    return Image.fromarray(np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8))


def add_image(root: Path, wnid: str, number: int, mode: str = "RGB", segmentation: bool = True) -> Path:
    """An image 40 pixels wide and 30 high, its object its left half; something ignored and another class beside."""
    name = f"ILSVRC2012_val_{number:08}"
    path = root / "ImageNetS919" / "validation" / wnid / f"{name}.JPEG"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, "JPEG")
    if segmentation:
        ids = np.zeros((30, 40), dtype=np.int64)
        ids[:, :20] = segmentation_ids()[wnid]
        ids[:10, 25:30] = IGNORED
        ids[20:, 25:30] = 400
        target = root / "ImageNetS919" / "validation-segmentation" / wnid / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        encode(ids).save(target)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for wnid, numbers in ((TABBY, (30, 10, 20)), (TENCH, (5, 4)), (VOLCANO_NEIGHBOUR, (77,))):
        for number in numbers:
            add_image(tmp_path, wnid, number)
    add_image(tmp_path, COCK, 50, mode="L")
    add_image(tmp_path, COCK, 51, mode="CMYK")
    add_image(tmp_path, PUBLISHED_EXCLUSIONS[1], 60)
    (tmp_path / "ImageNetS919" / "validation" / "n01443537").mkdir()
    (tmp_path / "ImageNetS919" / "validation" / ".cache").mkdir()
    return tmp_path


def test_every_image_of_every_class_in_order(root: Path) -> None:
    dataset = ImageNetS(root)
    assert [wnid for wnid, _ in dataset.samples] == [TENCH] * 2 + [COCK] * 2 + [TABBY] * 3 + [VOLCANO_NEIGHBOUR]
    assert [name[-7:-5] for _, name in dataset.samples] == ["04", "05", "50", "51", "10", "20", "30", "77"]
    for index, (wnid, name) in enumerate(dataset.samples):
        path, label, mask = dataset[index]  # type: ignore[misc]
        assert path == str(root / "ImageNetS919" / "validation" / wnid / name)
        assert label == LABELS[wnid]
        assert mask[:, :20].all()
        assert not mask[:, 20:].any()
    assert dataset.segmentation(0).unique().tolist() == [0, 1, 400, IGNORED]


def test_root_may_be_the_dataset_folder_itself(root: Path) -> None:
    assert ImageNetS(root / "ImageNetS919").samples == ImageNetS(root).samples


def test_n_takes_images_of_classes_with_enough(root: Path) -> None:
    """As in the paper's code: classes with fewer are left out."""
    assert [name[-7:-5] for _, name in ImageNetS(root, n=2).samples] == ["04", "05", "50", "51", "10", "20"]
    with pytest.raises(ValueError, match=r"no images in .* in a class of at least 4"):
        ImageNetS(root, n=4)


def test_exclusions_default_to_the_papers(root: Path) -> None:
    assert len(ImageNetS(root, exclude=())) == 9
    assert {wnid for wnid, _ in ImageNetS(root, exclude=[TENCH, TABBY]).samples} == {
        COCK, VOLCANO_NEIGHBOUR, PUBLISHED_EXCLUSIONS[1],
    }  # fmt: skip
    with pytest.raises(ValueError, match="exclude must be a collection of wnids"):
        ImageNetS(root, exclude=["tench"])
    assert len(set(PUBLISHED_EXCLUSIONS)) == 10


def test_a_listing_gives_the_images_and_their_order(root: Path) -> None:
    listing = root / "validation_stim_info.csv"
    listing.write_text(
        "imagenet_id,index,cat,img_name,img_index\n"
        f'{TABBY},281,"tabby, tabby cat",ILSVRC2012_val_00000030.JPEG,0\n'
        f"{TENCH},0,tench,ILSVRC2012_val_00000004.JPEG,0\n"
    )
    dataset = ImageNetS(root, listing=listing)
    assert dataset.samples == [(TABBY, "ILSVRC2012_val_00000030.JPEG"), (TENCH, "ILSVRC2012_val_00000004.JPEG")]
    listing.write_text("wnid,file\n")
    with pytest.raises(ValueError, match="must have columns imagenet_id and img_name, got"):
        ImageNetS(root, listing=listing)


def test_class_ids_are_positions_among_the_sorted_wnids() -> None:
    """Spot checks against the published table, whose rows are the sorted wnids."""
    ids = segmentation_ids()
    assert sorted(ids.values()) == list(range(1, 920))
    assert list(ids) == sorted(ids)
    assert (ids["n01440764"], ids["n01443537"], ids["n01484850"], ids["n15075141"]) == (1, 2, 3, 919)
    # a merged class's images carry the id of the class that it was merged into
    assert "n04356056" not in ids
    assert "n04355933" in ids


@pytest.mark.parametrize("class_id", [0, 1, 255, 256, 511, 512, 919, IGNORED])
def test_segmentations_are_read_as_r_plus_256_g(class_id: int) -> None:
    assert torch.equal(decode_segmentation(encode(np.full((2, 3), class_id))), torch.full((2, 3), class_id))


def test_a_segmentation_without_colours_of_8_bits_is_refused() -> None:
    for mode in ("L", "I;16", "F"):
        with pytest.raises(ValueError, match=f"expected a segmentation as an RGB picture, got mode {mode}"):
            decode_segmentation(Image.new(mode, (2, 3)))


def test_missing_folders_are_named(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected ImageNet-S as it is published, with ImageNetS919/validation"):
        ImageNetS(root / "nowhere")
    (root / "ImageNetS919" / "test").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no folder '.*test-segmentation'.* masks=False"):
        ImageNetS(root, partition="test")
    add_image(root, TENCH, 9)
    (root / "ImageNetS919" / "validation" / TENCH).rename(root / "ImageNetS919" / "validation" / "n00000001")
    with pytest.raises(ValueError, match=r"images of classes that ImageNet-S does not have: .'n00000001'."):
        ImageNetS(root)


def test_without_masks_no_segmentation_is_needed(root: Path) -> None:
    add_image(root, TENCH, 99, segmentation=False)
    dataset = ImageNetS(root, masks=False)
    assert len(dataset) == 9
    assert len(dataset[0]) == 2


def test_a_sweep_skips_broken_images_and_lists_them(root: Path) -> None:
    model = HookedViT.from_timm(make_timm("cls", num_classes=1000))
    missing = add_image(root, TENCH, 98, segmentation=False)
    truncated = add_image(root, TABBY, 99)
    truncated.write_bytes(truncated.read_bytes()[:-300])
    tables = sweep(model, ImageNetS(root), [], batch_size=3)
    assert tables["accuracy"]["n_images"].item() == 8
    assert tables["skipped"]["index"].tolist() == [2, 8]
    assert f"{missing.stem}.png" in tables["skipped"]["reason"][0]
    assert "no segmentation at" in tables["skipped"]["reason"][0]
    assert truncated.name in tables["skipped"]["reason"][1]
    assert "truncated" in tables["skipped"]["reason"][1]
