"""open_clip's towers and OpenAI's: equal to their own features, with their preprocessing; by name and from a folder."""

import json
import sys
from pathlib import Path
from typing import Any

import openai_clip
import pytest
import torch
from conftest import perturb
from PIL import Image
from torch import Tensor, nn

from hooked_vit import HookedViT

open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed: pip install 'hooked-vit[open-clip]'")

TEXT = {"context_length": 6, "vocab_size": 30, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": (32, 24), "patch_size": 8, "width": 24, "layers": 3, "head_width": 8, "mlp_ratio": 2.5}
TRUNK = {"timm_model_name": "test_vit", "image_size": 160}


def make_clip(quick_gelu: bool = False, **changes: object) -> Any:
    return perturb(open_clip.model.CLIP(10, {**VISION, **changes}, TEXT, quick_gelu=quick_gelu))


def make_timm_clip(**changes: object) -> Any:
    return perturb(open_clip.model.CustomTextCLIP(9, {**TRUNK, **changes}, TEXT))


KINDS: dict[str, Any] = {
    "openai's layout": lambda: make_clip(quick_gelu=True),
    "mean of the patches": lambda: make_clip(pool_type="avg"),
    "LayerScale, no ln_pre, norm after the pool": lambda: make_clip(
        ls_init_value=0.1, no_ln_pre=True, final_ln_after_pool=True, pool_type="avg"
    ),
    "another epsilon, features and tokens": lambda: make_clip(norm_kwargs={"eps": 1e-6}, output_tokens=True),
    "timm trunk, linear": lambda: make_timm_clip(timm_pool="token", timm_proj="linear", timm_proj_bias=True),
    "timm trunk, its own head": lambda: make_timm_clip(timm_pool="avg", timm_proj=""),
    "timm trunk, no head": lambda: make_timm_clip(timm_pool="token", timm_proj="none"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_towers_own(kind: str) -> None:
    module = KINDS[kind]()
    model = HookedViT.from_module(module)
    images = torch.randn(2, 3, *model.cfg.image_size)
    with torch.no_grad():
        expected = module.visual(images)
    expected = expected[0] if isinstance(expected, tuple) else expected
    assert (model(images) - expected).abs().max() < 1e-6 * expected.abs().max()
    assert model.cfg.n_classes == (0 if kind.endswith("no head") else expected.shape[1])
    tower_alone = HookedViT.from_module(module.visual)
    assert torch.equal(tower_alone(images), model(images))
    result = model.verify(module, images)
    assert result.relative < 1e-6
    assert result.source == "open_clip's"
    assert list(result.stages)[-2:] == [f"blocks.{model.cfg.n_layers - 1}", "logits"]


def test_openais_own_package() -> None:
    tower = openai_clip.VisionTransformer(side=32, patch=8, width=24, n_layers=3, n_heads=3, d_mlp=40, d_out=10)
    module = perturb(openai_clip.CLIP(tower))
    model = HookedViT.from_module(module)
    images = torch.randn(2, 3, 32, 32)
    result = model.verify(module, images)
    assert result.relative < 1e-6
    assert str(result).startswith(("logits are bitwise equal to clip's", "largest difference"))
    assert model.cfg.block_norm.in_float32
    assert model.cfg.act_fn == "quick_gelu"
    for part in module.modules():  # what the package does on a GPU
        if isinstance(part, nn.Conv2d | nn.Linear | nn.MultiheadAttention):
            part.bfloat16()
    module.visual.proj.data = module.visual.proj.data.bfloat16()
    half = HookedViT.from_module(module)
    assert half.embed.pos.dtype == half.cfg.dtype == torch.bfloat16
    expected = module.visual(images.bfloat16())
    assert (half(images.bfloat16()) - expected).abs().max() < 0.02 * expected.abs().max()


def test_a_changed_weight_is_located_in_its_block() -> None:
    module = make_clip()
    model = HookedViT.from_module(module)
    with torch.no_grad():
        model.blocks[2].attn.W_O[1] += 0.5
    assert model.verify(module, torch.randn(2, 3, 32, 24)).first_difference == "blocks.2"


# ---------------------------------------------------------------------- preprocessing and folders


def saved(folder: Path, **preprocessing: object) -> Any:
    """A model, saved as open_clip saves it."""
    module = make_clip(image_size=32)
    config = {"embed_dim": 10, "vision_cfg": {**VISION, "image_size": 32}, "text_cfg": TEXT}
    content = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    torch.save(module.state_dict(), folder / "open_clip_pytorch_model.bin")
    return module


@pytest.mark.parametrize(
    "preprocessing",
    [{}, {"resize_mode": "squash", "interpolation": "bilinear", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}],
)
def test_a_folder_comes_with_its_preprocessing(preprocessing: dict[str, Any], tmp_path: Path) -> None:
    module = saved(tmp_path, **preprocessing)
    model = HookedViT.from_pretrained(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    assert model.verify(module, images).relative < 1e-6
    _, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    noise = torch.randint(0, 256, (97, 142, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(noise.numpy())
    torch.testing.assert_close(model.preprocess(picture)[0], transform(picture), rtol=0, atol=1e-6)


def test_padding_with_a_colour_has_no_counterpart(tmp_path: Path) -> None:
    saved(tmp_path, resize_mode="longest")
    model = HookedViT.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the model's preprocessing is unknown"):
        model.preprocess(Image.new("RGB", (40, 50)))


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-32", "open_clip has no weights for 'ViT-B-32'.*did you mean 'open_clip:ViT-B-32/"),
        ("open_clip:ViT-B-32/lion", "open_clip's 'ViT-B-32' has no weights 'lion'; there are: .*laion2b_s34b_b79k"),
        ("open_clip:ViT-B/32/lion", "open_clip's 'ViT-B-32' has no weights 'lion'"),
    ],
)
def test_names_that_open_clip_does_not_have(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HookedViT.from_pretrained(name)


def test_without_network_or_weights_the_error_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"open_clip cannot load 'ViT-B-32/laion2b_s34b_b79k': .*Without network access"):
        HookedViT.from_pretrained("open_clip:ViT-B-32/laion2b_s34b_b79k")
    saved(tmp_path)
    (tmp_path / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(OSError, match="open_clip cannot load"):
        HookedViT.from_pretrained(tmp_path)


def test_without_open_clip_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r"open_clip is not installed: pip install 'hooked-vit\[open-clip\]'"):
        HookedViT.from_pretrained("open_clip:ViT-B-32/laion2b_s34b_b79k")


class Doubled(nn.GELU):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def other_activation(module: Any) -> None:
    module.visual.transformer.resblocks[1].mlp.gelu = Doubled()


def hooked(module: Any) -> None:
    module.visual.transformer.resblocks[1].register_forward_hook(lambda module, args, output: 2 * output)


@pytest.mark.parametrize(
    ("change", "message"),
    [(other_activation, "Doubled as 'transformer.resblocks.1.mlp.gelu'"), (hooked, "a forward hook")],
)
def test_changed_parts_are_refused(change: Any, message: str) -> None:
    module = make_clip()
    change(module)
    with pytest.raises(ValueError, match=message):
        HookedViT.from_module(module)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_clip(attentional_pool=True, attn_pooler_heads=2), "AttentionalPooler as 'attn_pool'"),
        (lambda: make_clip(pool_type="none"), "features that are not pooled"),
        (lambda: make_clip(qk_norm=True), "CustomResidualAttentionBlock as 'transformer.resblocks.0'"),
        (lambda: make_clip(layers=[1, 1, 1, 1], width=64, head_width=32, image_size=32), "a open_clip.*ModifiedResNet"),
        (lambda: make_timm_clip(timm_pool="token", timm_proj="mlp"), r"a head of timm.layers.mlp.Mlp \(pass `module.v"),
    ],
)
def test_towers_that_are_not_covered_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HookedViT.from_module(make())
