"""Hugging Face models by name and from folders, with their preprocessing and class names."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from conftest import perturb
from huggingface_models import make_huggingface, output_of
from PIL import Image
from safetensors.torch import load_file, save_file

from hooked_vit import HookedViT
from hooked_vit.porting.huggingface.processor import read_processor

NAMES = {index: f"bird {index}" for index in range(7)}
SQUARE = {"size": {"height": 32, "width": 32}}


def saved(folder: Path, kind: str, processor: Any = None, **changes: object) -> tuple[Any, Path]:
    """A model, and the folder in which it is saved with its processor."""
    module = make_huggingface(kind, **changes)
    module.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return module, folder


@pytest.fixture
def picture() -> Image.Image:
    """A picture of odd, unequal sides, with fine detail."""
    y, x = np.mgrid[0:97, 0:142]
    noise = np.random.default_rng(0).integers(0, 255, (97, 142))
    channels = 127 + 100 * np.sin(x / 7), 127 + 100 * np.cos(y / 5), noise
    return Image.fromarray(np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("kind", ["vit", "dinov2_registers", "clip", "siglip_classifier", "ijepa", "deit_teacher"])
def test_a_folder_is_the_model_saved_in_it(kind: str, tmp_path: Path) -> None:
    module, folder = saved(tmp_path, kind, transformers.ViTImageProcessor(**SQUARE) if kind != "vit" else None)
    model = HookedViT.from_pretrained(folder)
    images = torch.randn(2, 3, *model.cfg.image_size)
    expected = output_of(kind, module, images)
    assert (model(images) - expected).abs().max() < 1e-6 * expected.abs().max()
    assert torch.equal(HookedViT.from_pretrained(f"hf:{folder}")(images), model(images))


def test_the_files_have_the_names_of_transformers_4(tmp_path: Path) -> None:
    module, folder = saved(tmp_path, "vit")
    names = load_file(folder / "model.safetensors")
    assert "vit.encoder.layer.0.attention.attention.query.weight" in names  # what version 4 called it
    torch.save(dict(names), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    model = HookedViT.from_pretrained(folder)
    images = torch.randn(2, 3, 32, 24)
    assert torch.equal(model(images), output_of("vit", module, images))


def test_names_and_preprocessing_come_along(tmp_path: Path, picture: Image.Image) -> None:
    processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 24}, image_mean=(0.2, 0.3, 0.4))
    _, folder = saved(tmp_path, "vit", processor, id2label=NAMES)
    model = HookedViT.from_pretrained(folder, dtype=torch.float64)
    assert model.class_names == tuple(NAMES.values())
    assert model.cfg.dtype == torch.float64
    expected = processor(picture, return_tensors="pt").pixel_values
    torch.testing.assert_close(model.preprocess(picture), expected.double(), rtol=0, atol=1e-6)


PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "squash": ("ViTImageProcessor", {"size": {"height": 32, "width": 24}}),
    "crop": ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    "crop of a larger image": ("BitImageProcessor",
                               {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}}),
    "crop of a squashed image": ("DeiTImageProcessor",
                                 {"size": {"height": 37, "width": 37}, "crop_size": {"height": 32, "width": 32}}),
    "not normalised": ("SiglipImageProcessor", {**SQUARE, "do_normalize": False, "resample": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_pictures_are_prepared_as_the_processor_does(name: str, picture: Image.Image) -> None:
    kind, arguments = PROCESSORS[name]
    model = HookedViT.from_module(make_huggingface("vit"))
    with_pil = getattr(transformers, f"{kind}Pil")(**arguments)
    model.data_config = read_processor(with_pil, 3, (32, 24))
    expected = with_pil(picture, return_tensors="pt").pixel_values
    torch.testing.assert_close(model.preprocess(picture), expected, rtol=0, atol=1e-6)

    # the other backend rounds a few resized pixels to the next of 256 values
    with_torch = getattr(transformers, kind)(**arguments)
    assert read_processor(with_torch, 3, (32, 24)) == model.data_config
    difference = (with_torch(picture, return_tensors="pt").pixel_values - expected).abs()
    step = 1 / 255 / min(model.data_config["std"])
    assert difference.max() < 1.01 * step
    assert (difference > 1e-5).float().mean() < 0.01


def test_object_masks_are_cropped_as_pictures_are(picture: Image.Image) -> None:
    from analyses.data.masks import mask_like

    kind, arguments = PROCESSORS["crop of a larger image"]
    config = read_processor(getattr(transformers, kind)(**arguments), 3, (32, 32))
    model = HookedViT.from_module(make_huggingface("clip_encoder"))
    model.data_config = {**config, "interpolation": "nearest", "mean": (0, 0, 0), "std": (1, 1, 1)}
    mask = np.asarray(picture)[..., 0] > 127
    white = Image.fromarray(np.repeat(255 * mask[..., None], 3, axis=-1).astype(np.uint8))
    assert torch.equal(mask_like(mask, model.data_config), model.preprocess(white)[0, 0] > 0.5)


def test_positions_are_resampled_to_the_size_of_the_pictures(tmp_path: Path) -> None:
    processor = transformers.BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 24, "width": 24})
    module, folder = saved(tmp_path, "dinov2", processor)
    with pytest.warns(UserWarning, match="positions learnt on 4 × 4 patches are resampled to 3 × 3, for images of 24"):
        model = HookedViT.from_pretrained(folder)
    assert model.token_layout.grid == (3, 3)
    assert model.W_pos.shape == (10, 24)
    images = model.preprocess([Image.new("RGB", (50, 40), "red"), Image.new("RGB", (30, 70), "blue")])
    assert images.shape == (2, 3, 24, 24)
    assert torch.equal(model(images), output_of("dinov2", module, images))
    whole = HookedViT.from_pretrained(folder, img_size=32)
    assert whole.token_layout.grid == (4, 4)
    assert whole.preprocess(Image.new("RGB", (50, 40))).shape == (1, 3, 32, 32)


def test_another_img_size_is_what_transformers_interpolates(tmp_path: Path) -> None:
    module, folder = saved(tmp_path, "clip_projected")
    with pytest.warns(UserWarning, match="are resampled to 5 × 3"):
        model = HookedViT.from_pretrained(folder, img_size=(40, 24))
    images = torch.randn(2, 3, 40, 24)
    with torch.no_grad():
        expected = module(images, interpolate_pos_encoding=True).image_embeds
    assert torch.equal(model(images), expected)
    with pytest.raises(ValueError, match=r"img_size must be a multiple of the patch size \(8, 8\), got \(20, 24\)"):
        HookedViT.from_pretrained(folder, img_size=(20, 24))


def test_siglip_2_squashes_pictures_to_its_own_size(tmp_path: Path) -> None:
    processor = transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    module, folder = saved(tmp_path, "siglip2_encoder", processor)
    model = HookedViT.from_pretrained(folder)
    square = Image.fromarray(np.random.default_rng(1).integers(0, 255, (50, 50, 3)).astype(np.uint8))
    prepared = processor(square, return_tensors="pt")
    with torch.no_grad():
        expected = module(**prepared).pooler_output
    torch.testing.assert_close(model(model.preprocess(square)), expected, rtol=1e-5, atol=1e-5)


def test_a_folder_of_timm_is_loaded_by_timm(tmp_path: Path) -> None:
    module = perturb(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=7))
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224", "num_classes": 7, "model_args": {"img_size": 32, "depth": 2},
        "pretrained_cfg": {"input_size": [3, 32, 32], "num_classes": 7, "mean": [0.1, 0.2, 0.3],
                           "std": [0.4, 0.5, 0.6], "first_conv": "patch_embed.proj", "classifier": "head"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = HookedViT.from_pretrained(tmp_path)
    assert model.verify(module, torch.randn(2, 3, 32, 32)).bitwise
    assert tuple(model.data_config["mean"]) == (0.1, 0.2, 0.3)


# ---------------------------------------------------------------------- what cannot be loaded


def test_without_network_the_error_is_one_sentence() -> None:
    with pytest.raises(
        OSError, match=r"cannot load 'facebook/dinov2-small' from the Hugging Face hub: it is not in the"
    ):
        HookedViT.from_pretrained("hf:facebook/dinov2-small")
    with pytest.raises(
        ValueError, match=r"unknown model 'facebook/dinov2-small'; did you mean 'hf:facebook/dinov2-small'"
    ):
        HookedViT.from_pretrained("facebook/dinov2-small")


def test_folders_that_lack_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder at"):
        HookedViT.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no config.json, which would say what model it is"):
        HookedViT.from_pretrained(tmp_path)
    (tmp_path / "x.pth").touch()
    with pytest.raises(FileNotFoundError, match=r"load its weights into an architecture of timm, with weights=.*x.pth"):
        HookedViT.from_pretrained(tmp_path)
    _, folder = saved(tmp_path / "saved", "vit")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no weights \(model.safetensors\): it holds config.json"):
        HookedViT.from_pretrained(folder)


def test_configs_of_other_models(tmp_path: Path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    transformers.BertModel(transformers.BertConfig(**small, vocab_size=50)).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"not covered: '.*bert' is BertModel.*HookedViT covers ViT, DeiT"):
        HookedViT.from_pretrained(tmp_path / "bert")
    for text, message in [
        ("{", "config.json' is not JSON"),
        ("[1]", "config.json' holds a list, not the settings of a model"),
        ('{"model_type": "cat"}', "has a config.json of no model of transformers"),
    ]:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            HookedViT.from_pretrained(tmp_path)


def test_weights_that_lack_a_part_are_refused_not_left_random(tmp_path: Path) -> None:
    _, folder = saved(tmp_path / "saved", "vit")
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "layer.1" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lack vit.layers.1.* and 13 more, which transformers would leave random"):
        HookedViT.from_pretrained(folder)
    adapted = {**weights, "vit.encoder.layer.0.attention.attention.query.lora_A.weight": torch.zeros(2, 24)}
    save_file(adapted, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"hold an adapter or quantised layers .*lora_A.*merge the adapter first"):
        HookedViT.from_pretrained(folder)
    wide = {**weights, "classifier.weight": torch.zeros(9, 24), "classifier.bias": torch.zeros(9)}
    save_file(wide, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"the weights of .* do not fit its config.json"):
        HookedViT.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises((ValueError, OSError), match=re.escape(str(folder))):
        HookedViT.from_pretrained(folder)


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("was-run"),))


def test_weights_are_read_without_unpickling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = saved(tmp_path / "saved", "vit")
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.bias": Runs()}, folder / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        HookedViT.from_pretrained(folder)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_resize": False}, "ViTImageProcessor does not resize"),
        ({"do_rescale": False}, "does not rescale pixels from 0-255 to 0-1"),
        (
            {"size": {"shortest_edge": 32}},
            r"resizes to \{'shortest_edge': 32\}, which does not give images of one size",
        ),
        (
            {"do_center_crop": True, "crop_size": {"height": 40, "width": 40}},
            "crops .* another aspect ratio or a larger",
        ),
        ({"do_pad": True}, r"has a step that HookedViT's preprocessing lacks \(do_pad\)"),
    ],
)
def test_a_processor_that_does_more_is_refused(changes: dict[str, Any], message: str) -> None:
    processor = transformers.ViTImageProcessor(**{**SQUARE, **changes})
    with pytest.raises(ValueError, match=message):
        read_processor(processor, 3, (32, 32))


def test_a_processor_that_does_not_fit_its_model(tmp_path: Path) -> None:
    _, folder = saved(tmp_path, "vit", transformers.ViTImageProcessor(size={"height": 64, "width": 64}))
    with pytest.raises(
        ValueError, match=r"makes images of 64 × 64 pixels, the model takes 32 × 24: pass img_size=\(64"
    ):
        HookedViT.from_pretrained(folder)


def test_options_of_timm_do_not_go_with_other_sources(tmp_path: Path) -> None:
    _, folder = saved(tmp_path, "clip_encoder")
    with pytest.raises(ValueError, match="takes img_size only, got num_classes"):
        HookedViT.from_pretrained(folder, num_classes=3)
    with pytest.raises(ValueError, match=r"weights is for architectures of timm: '.*' has weights of its own"):
        HookedViT.from_pretrained(folder, weights="x.pth")
    model = HookedViT.from_pretrained(folder)
    with pytest.raises(ValueError, match="the model's preprocessing is unknown"):
        model.preprocess(Image.new("RGB", (32, 32)))
    shutil.rmtree(folder)
