"""Preprocessing is timm's own, and has an inverse; bad pictures are refused."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import make_timm
from PIL import Image

from hooked_vit import HookedViT, HookedViTConfig
from hooked_vit.preprocessing import as_picture, check_finite


@pytest.fixture
def picture() -> Image.Image:
    """A coloured picture that is not square."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def model() -> HookedViT:
    """A model whose preprocessing differs from the usual one."""
    module = make_timm("cls")
    module.pretrained_cfg = {
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "crop_pct": 0.8,
        "interpolation": "bicubic",
    }
    return HookedViT.from_timm(module)


def test_preprocessing_is_timms_transform(model: HookedViT, picture: Image.Image) -> None:
    transform = timm.data.create_transform(
        input_size=(3, 32, 24), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop_pct=0.8, interpolation="bicubic"
    )
    assert torch.equal(model.preprocess(picture)[0], transform(picture))


def test_paths_pictures_and_arrays_are_the_same(model: HookedViT, picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "x.png")
    array = np.asarray(picture)
    batch = model.preprocess(
        [picture, tmp_path / "x.png", str(tmp_path / "x.png"), array, array / 255, torch.from_numpy(array.copy())]
    )
    assert batch.shape == (6, 3, 32, 24)
    assert all(torch.equal(image, batch[0]) for image in batch)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "I;16"])
def test_pictures_of_every_mode_become_rgb(model: HookedViT, mode: str, picture: Image.Image, tmp_path: Path) -> None:
    converted = picture.convert("L").convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    converted.save(path)
    assert model.preprocess(path).shape == (1, 3, 32, 24)


def test_a_greyscale_model_takes_one_channel(picture: Image.Image) -> None:
    model = HookedViT.from_timm(make_timm("cls", in_chans=1))
    assert model.preprocess(picture).shape == (1, 1, 32, 24)


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        ([], ValueError, "expected at least one picture, got an empty list"),
        ("absent.png", FileNotFoundError, "no picture at 'absent.png'"),
        (np.zeros((3, 20, 30), np.uint8), ValueError, "move the channels to the last axis"),
        (np.zeros((20, 30, 2), np.uint8), ValueError, r"with 1, 3 or 4 channels, got \(20, 30, 2\)"),
        (np.zeros((0, 30, 3), np.uint8), ValueError, "got .0, 30, 3."),
        (np.full((20, 30, 3), np.nan), ValueError, "holds NaN or infinity"),
        (np.full((20, 30, 3), -1.5), ValueError, "expected floats from 0 to 1, got -1.5 to -1.5"),
        (
            np.zeros((20, 30, 3), np.int64),
            ValueError,
            "expected uint8, uint16 or floats from 0 to 1, got int64: .* scale them",
        ),
        (np.zeros((20, 30), np.int32), ValueError, "got int32: the range of its values is not known"),
        (np.zeros((20, 30), np.uint32), ValueError, "got uint32"),
        (
            Image.new("F", (20, 30)),
            ValueError,
            r"range of its values is not known \(mode F, floats\): scale them to 8 or",
        ),
        (
            Image.new("I", (20, 30)),
            ValueError,
            r"\(mode I, whole numbers of 32 bits\): .* an array of uint8, uint16, or",
        ),
        (object(), TypeError, "expected a path, a PIL image or an array, got object"),
    ],
)
def test_bad_pictures(model: HookedViT, picture: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model.preprocess(picture)


def deep_pixels() -> np.ndarray:
    """A grey picture of 16 bits."""
    return np.random.default_rng(0).integers(0, 2**16, (50, 70), dtype=np.uint16)


@pytest.mark.parametrize("file_format", ["png", "tiff", "pgm"])
def test_16_bits_are_scaled_to_8_from_the_full_range(file_format: str, tmp_path: Path) -> None:
    """Of the same picture as a file, as a PIL image and as an array of either byte order."""
    pixels, path = deep_pixels(), tmp_path / f"x.{file_format}"
    Image.fromarray(pixels).save(path)
    with Image.open(path) as opened:
        opened.load()
        pictures = [as_picture(image) for image in (path, opened, pixels, pixels.astype(">u2"))]
    for picture in (*pictures, as_picture(torch.from_numpy(pixels.astype(np.int32)).to(torch.uint16))):
        assert picture.mode == "L"
        for row in range(50):
            for column in range(70):
                assert picture.getpixel((column, row)) == round(pixels[row, column] / 65535 * 255)


def test_colours_of_16_bits_are_scaled_too() -> None:
    deep = np.stack([deep_pixels()] * 3, axis=-1)
    assert np.array_equal(np.asarray(as_picture(deep))[..., 1], np.asarray(as_picture(deep[..., 1])))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_16_bits_of_every_byte_order(mode: str) -> None:
    assert as_picture(Image.new(mode, (4, 6), 257 * 100)).getextrema() == (100, 100)


def test_a_tiff_of_12_bits_reaches_white(tmp_path: Path) -> None:
    """PIL reads it as mode I;16 without scaling."""
    Image.new("I;16", (4, 2)).save(tmp_path / "x.tiff")
    content = bytearray((tmp_path / "x.tiff").read_bytes())
    with Image.open(tmp_path / "x.tiff") as opened:
        start = opened.tag_v2[273][0]
    bits = content.index(bytes([2, 1, 3, 0, 1, 0, 0, 0, 16, 0]))
    content[bits + 8] = 12
    content[start : start + 12] = b"\xff" * 12  # two rows of four values
    (tmp_path / "y.tiff").write_bytes(content)
    with Image.open(tmp_path / "y.tiff") as opened:
        assert (opened.mode, opened.getextrema()) == ("I;16", (4095, 4095))
    assert as_picture(tmp_path / "y.tiff").getextrema() == (255, 255)


def test_a_picture_of_16_bits_is_turned_upright_and_keeps_its_transparency(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((5, 7), dtype=np.uint16)
    pixels[0] = 40000
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif, transparency=40000)
    picture = as_picture(tmp_path / "x.png")
    assert (picture.mode, picture.size) == ("RGBA", (5, 7))
    assert np.asarray(picture)[0].tolist() == [[0, 0, 0, 255]] * 4 + [[156, 156, 156, 0]]


def transparent_pictures() -> dict[str, Image.Image]:
    """Red with the left half transparent, in every mode that PIL has for it; grey for LA."""
    picture = Image.new("RGBA", (8, 6), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 4, 6))
    indexed = Image.new("P", (8, 6), 1)
    indexed.putpalette([0, 0, 0, 255, 0, 0])
    indexed.paste(0, (0, 0, 4, 6))
    indexed.info["transparency"] = 0
    keyed = Image.new("RGB", (8, 6), (255, 0, 0))
    keyed.paste((0, 0, 0), (0, 0, 4, 6))
    keyed.info["transparency"] = (0, 0, 0)
    palette_with_alpha = indexed.copy()
    del palette_with_alpha.info["transparency"]
    palette_with_alpha.putpalette([0, 0, 0, 0, 255, 0, 0, 255], "RGBA")
    return {
        "RGBA": picture,
        "RGBa": picture.convert("RGBa"),
        "LA": picture.convert("LA"),
        "La": picture.convert("LA").convert("La"),
        "PA": indexed.convert("PA"),
        "P": indexed,
        "P with alpha": palette_with_alpha,
        "RGB": keyed,
    }


@pytest.mark.parametrize("mode", sorted(transparent_pictures()))
def test_transparent_pictures_are_composited_on_white(mode: str, tmp_path: Path) -> None:
    model = HookedViT.from_timm(make_timm("cls", img_size=(6, 8), patch_size=2))
    model.data_config = {**model.data_config, "mean": (0, 0, 0), "std": (1, 1, 1), "crop_pct": 1.0}
    picture = transparent_pictures()[mode]
    pixels = np.asarray((picture.convert("LA") if mode == "La" else picture).convert("RGBA"))
    pictures: list = [picture, pixels, pixels / 255]
    if mode in ("RGBA", "LA", "P", "RGB"):
        picture.save(tmp_path / "x.png", transparency=picture.info.get("transparency"))
        pictures.append(tmp_path / "x.png")
    grey = pixels[0, 7, 0] / 255 if mode in ("LA", "La") else None
    for image in model.preprocess(pictures):
        assert (image[:, :, :4] == 1).all()
        right = torch.tensor([1.0, 0.0, 0.0]) if grey is None else torch.full((3,), float(grey))
        torch.testing.assert_close(image[:, :, 4:], right[:, None, None].expand(3, 6, 4))


def test_half_transparent_colours_are_mixed_with_white_also_for_one_channel() -> None:
    model = HookedViT.from_timm(make_timm("cls", in_chans=1))
    model.data_config = {**model.data_config, "mean": (0,), "std": (1,)}
    image = model.preprocess(Image.new("RGBA", (30, 40), (0, 0, 0, 102)))
    torch.testing.assert_close(image, torch.full((1, 1, 32, 24), 1 - 102 / 255))


def test_a_model_of_four_channels_sees_the_alpha_channel() -> None:
    model = HookedViT.from_timm(make_timm("cls", in_chans=4))
    model.data_config = {**model.data_config, "mean": (0,), "std": (1,)}
    image = model.preprocess(Image.new("RGBA", (30, 40), (255, 0, 51, 102)))
    torch.testing.assert_close(image[0, :, 5, 5], torch.tensor([1, 0, 0.2, 0.4]), atol=1 / 255, rtol=0)


def test_opaque_pixels_are_unchanged_by_compositing(model: HookedViT, picture: Image.Image) -> None:
    opaque = picture.convert("RGBA")
    assert torch.equal(model.preprocess(opaque), model.preprocess(picture))


def test_files_that_are_not_pictures(model: HookedViT, picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "x.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:600])
    (tmp_path / "text.png").write_text("not a picture", "utf-8")
    for name in ("cut.jpg", "text.png"):
        with pytest.raises(ValueError, match=f"{name}' cannot be read as a picture"):
            model.preprocess(tmp_path / name)


def test_nan_in_a_batch_made_by_hand_is_found() -> None:
    batch = torch.zeros(3, 2, 4, 5)
    check_finite(batch)
    batch[1, 0, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="image 1 holds NaN or infinity"):
        check_finite(batch)


def test_a_photo_is_rotated_upright(model: HookedViT, picture: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = picture.transpose(Image.Transpose.ROTATE_270)
    assert torch.equal(model.preprocess(tmp_path / "turned.png"), model.preprocess(upright))
    with Image.open(tmp_path / "turned.png") as opened:
        assert torch.equal(model.preprocess(opened), model.preprocess(upright))
        assert as_picture(opened, upright=False).size == picture.size
    assert as_picture(tmp_path / "turned.png", upright=False).size == picture.size


def test_a_picture_of_an_input_is_the_picture_that_made_it(model: HookedViT) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 24, 3), dtype=np.uint8)
    model.data_config = {**model.data_config, "mean": (0.1, 0.5, 0.7), "std": (0.3, 0.2, 0.4), "crop_pct": 1.0}
    shown = model.picture_of(model.preprocess(pixels)[0])
    for row in range(32):
        for column in range(24):
            for channel in range(3):
                assert abs(shown[row, column, channel] - pixels[row, column, channel] / 255) < 1e-6


def test_a_picture_of_a_greyscale_input_has_one_channel() -> None:
    model = HookedViT.from_timm(make_timm("cls", in_chans=1))
    model.data_config = {**model.data_config, "mean": (0.2, 0.4, 0.6), "std": (0.1, 0.2, 0.3), "crop_pct": 1.0}
    pixels = np.random.default_rng(0).integers(0, 256, (32, 24), dtype=np.uint8)
    shown = model.picture_of(model.preprocess(pixels)[0])
    np.testing.assert_allclose(shown, pixels[..., None] / 255, atol=1e-6)


def test_values_outside_the_range_of_a_picture_are_clamped(model: HookedViT) -> None:
    assert model.picture_of(torch.full((3, 4, 6), 100.0)).max() == 1
    assert model.picture_of(torch.full((3, 4, 6), -100.0)).min() == 0


def test_without_preprocessing_a_picture_spans_the_inputs_own_range() -> None:
    model = HookedViT(HookedViTConfig(1, 12, 3, 20, 7, (16, 24), (8, 8)))
    image = torch.tensor([-1.0, 0.0, 3.0]).expand(3, 2, 3)
    assert model.picture_of(image)[0].tolist() == [[0, 0, 0], [0.25, 0.25, 0.25], [1, 1, 1]]
    assert model.picture_of(torch.ones(3, 2, 2)).max() == 0
