"""Official files: layouts of other projects load by the architecture's name, at any image size, as timm loads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import perturb
from torch import Tensor, nn

from hooked_vit import HookedViT
from hooked_vit.porting.verify import verify

State = dict[str, Tensor]
SMALL = {"depth": 2, "embed_dim": 24, "num_heads": 3, "img_size": 32, "patch_size": 8}


def renamed(state: State, *swaps: tuple[str, str], prefix: str = "") -> State:
    """Each old part of the names replaced by a new one, in order."""
    for new, old in swaps:
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    return {prefix + name: tensor for name, tensor in state.items()}


def dinov2(state: State) -> State:
    """CLS has a row of the positions, registers another name; a mask token for pre-training."""
    row = torch.randn(1, 1, 24)
    changed = {**state, "cls_token": state["cls_token"] - row, "mask_token": torch.zeros(1, 24)}
    changed["pos_embed"] = torch.cat([row, state["pos_embed"]], dim=1)
    changed["register_tokens"] = changed.pop("reg_token")
    return changed


def openai_clip(state: State) -> State:
    """The whole model, text tower included."""
    rest = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    names = [("patch_embed.proj", "conv1"), ("pos_embed", "positional_embedding"), ("cls_token", "class_embedding"),
             ("norm_pre", "ln_pre"), ("blocks.", "transformer.resblocks."), ("norm", "ln_"), ("qkv.", "in_proj_"),
             ("attn.proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")]  # fmt: skip
    changed = renamed(rest, *names)
    final = {name: tensor for name, tensor in changed.items() if name.startswith("ln_.")}
    changed = {name: tensor for name, tensor in changed.items() if name not in final}
    changed |= {name.replace("ln_.", "ln_post."): tensor for name, tensor in final.items()}
    changed["class_embedding"] = changed["class_embedding"][0, 0]
    changed["positional_embedding"] = changed["positional_embedding"][0]
    changed["proj"] = state["head.weight"].T.contiguous()
    text = {
        "token_embedding.weight": torch.zeros(5, 3),
        "logit_scale": torch.zeros(()),
        "ln_final.bias": torch.zeros(3),
    }
    return {**renamed(changed, prefix="visual."), **text}


def open_clip_trunk(state: State) -> State:
    """A timm model in open_clip, whose projection is beside the trunk."""
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    head = {"visual.head.proj.weight": state["head.weight"], "text.positional_embedding": torch.zeros(3, 4)}
    return {**renamed(trunk, prefix="visual.trunk."), **head}


def aimv2(state: State) -> State:
    swaps = [("norm1", "norm_1"), ("norm2", "norm_2"), ("patch_embed.", "preprocessor.patchifier."),
             ("pos_embed", "preprocessor.pos_embed"), ("blocks.", "trunk.blocks."), ("mlp.fc1_x", "mlp.fc3"),
             ("mlp.fc1_g", "mlp.fc1")]  # fmt: skip
    changed = renamed(state, *swaps)
    final = [name for name in changed if name.startswith("norm.")]
    return {(f"trunk.post_trunk_{name}" if name in final else name): tensor for name, tensor in changed.items()}


def eva_clip(state: State) -> State:
    names = [("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("mlp.fc2", "mlp.w3"), ("mlp.norm", "mlp.ffn_ln")]
    bands = {"visual.rope.freqs_cos": torch.zeros(3), "text.x": torch.zeros(2)}
    return {**renamed(renamed(state, *names), prefix="visual."), **bands}


def dinov3(state: State) -> State:
    buffers = {"rope_embed.periods": torch.ones(2), "mask_token": torch.zeros(1, 24)}
    names = ("reg_token", "storage_tokens"), ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma")
    return {**renamed(state, *names), **buffers}


def radio(state: State) -> State:
    """Patches without a bias by a matrix, one token after the other, teachers' heads besides."""
    own = {"patch_generator.embedder.weight": state["patch_embed.proj.weight"].flatten(1)}
    own["patch_generator.pos_embed"] = state["pos_embed"]
    own["patch_generator.cls_token.token"] = torch.cat([state["cls_token"][0], state["reg_token"][0]])
    own |= {name: tensor for name, tensor in state.items() if name.startswith("blocks.")}
    return {
        **renamed(own, prefix="radio_model.model."),
        "radio_model.input_conditioner.norm_mean": torch.zeros(3, 1, 1),
    }


def deit(state: State) -> State:
    """DeiT III: LayerScale is a parameter of the block."""
    return renamed(state, ("ls1.gamma", "gamma_1"), ("ls2.gamma", "gamma_2"))


def without_head(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}


# architecture, how its official file is made from timm's state dict, what wraps it, further arguments
LAYOUTS: dict[str, tuple[str, Callable[[State], State], str | None, dict[str, Any]]] = {
    "DINOv2": ("vit_small_patch14_reg4_dinov2", dinov2, None, {"num_classes": 0}),
    "MAE": ("vit_base_patch16_224", without_head, "model", {"num_classes": 0}),
    "DeiT": ("deit3_small_patch16_224", deit, "model", {"num_classes": 7}),
    "OpenAI CLIP": ("vit_base_patch16_clip_224", openai_clip, "state_dict", {"num_classes": 10}),
    "open_clip around timm": ("vit_base_patch16_224", open_clip_trunk, None, {"num_classes": 10}),
    "AIMv2": ("aimv2_large_patch14_224", aimv2, None, {"num_classes": 0}),
    "EVA-CLIP": ("eva02_base_patch16_clip_224", eva_clip, None, {"num_classes": 10}),
    "DINOv3": ("vit_small_patch16_dinov3", dinov3, "teacher", {"num_classes": 0}),
    "RADIO": ("vit_base_patch16_radio_v3", radio, "state_dict", {"num_classes": 0}),
    "BEiT": ("beit_base_patch16_224", dict, "model", {"num_classes": 7}),
}


def original(name: str) -> tuple[str, nn.Module, dict[str, Any], dict[str, Any] | State]:
    architecture, layout, wrapper, more = LAYOUTS[name]
    arguments = {**SMALL, **more}
    module = perturb(timm.create_model(architecture, **arguments))
    with torch.no_grad():
        if layout in (openai_clip, open_clip_trunk):
            module.get_parameter("head.bias").zero_()  # there is none in these files
        if layout is radio:
            module.get_parameter("patch_embed.proj.bias").zero_()
    state = layout({key: tensor.clone() for key, tensor in module.state_dict().items()})
    return architecture, module, arguments, state if wrapper is None else {wrapper: state, "epoch": 3}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_official_file_loads_by_the_architectures_name(layout: str, tmp_path: Path) -> None:
    architecture, module, arguments, content = original(layout)
    torch.save(content, tmp_path / "official.pth")
    given = {key: value for key, value in arguments.items() if key != "num_classes"}  # the file shows how many
    model = HookedViT.from_pretrained(architecture, weights=tmp_path / "official.pth", **given)
    result = verify(model, module, torch.randn(2, 3, 32, 32))
    # CLS and its position were added up on the way
    assert result.bitwise or (layout == "DINOv2" and result.relative < 1e-6)


@pytest.mark.parametrize("layout", ["DINOv2", "OpenAI CLIP", "BEiT"])
def test_positions_are_resampled_as_timm_does_and_it_says_so(layout: str, tmp_path: Path) -> None:
    architecture, _, arguments, content = original(layout)
    torch.save(content, tmp_path / "official.pth")
    with pytest.warns(UserWarning, match=r"the positions in '.*official.pth' .* are resampled to"):
        model = HookedViT.from_pretrained(
            architecture, weights=tmp_path / "official.pth", **{**arguments, "img_size": 48}
        )
    overlay = {"file": str(tmp_path / "official.pth"), "hf_hub_id": None, "num_classes": arguments["num_classes"]}
    options = {**arguments, "img_size": 48}
    expected = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=overlay, **options).eval()
    assert verify(model, expected, torch.randn(2, 3, 48, 48)).bitwise


def test_patches_of_another_size_are_resampled_and_it_says_so(tmp_path: Path) -> None:
    architecture, _, arguments, content = original("MAE")
    torch.save(content, tmp_path / "official.pth")
    with pytest.warns(UserWarning, match=r"for patches of \(8, 8\) pixels, is resampled to \(4, 4\)"):
        HookedViT.from_pretrained(
            architecture, weights=tmp_path / "official.pth", **{**arguments, "patch_size": 4, "img_size": 16}
        )


def test_a_fitting_file_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    architecture, _, arguments, content = original("BEiT")
    torch.save(content, tmp_path / "official.pth")
    HookedViT.from_pretrained(architecture, weights=tmp_path / "official.pth", **arguments)
    assert not [warning for warning in recwarn if "resampled" in str(warning.message)]


def test_what_timm_cannot_convert_is_explained_by_its_keys(tmp_path: Path) -> None:
    torch.save({"blocks.0.norm1.weight": torch.zeros(3), "pos_embed": torch.zeros(2, 2)}, tmp_path / "x.pth")
    with pytest.raises(
        ValueError, match=r"x.pth' does not fit VisionTransformer: it lacks \['blocks.0.attn.proj.bias'"
    ):
        HookedViT.from_pretrained("vit_base_patch16_224", weights=tmp_path / "x.pth", **SMALL)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "vit.embeddings.patch_embeddings.projection.weight",
            r"Hugging Face transformers: put the file as model.safet",
        ),
        (
            "vision_model.embeddings.patch_embedding.weight",
            r"config.json, and load `HookedViT.from_pretrained\('folder'",
        ),
        ("conv_proj.weight", "torchvision, which timm does not read"),
    ],
)
def test_other_layouts_are_named_with_the_call_that_works(key: str, message: str, tmp_path: Path) -> None:
    torch.save({key: torch.zeros(2, 3)}, tmp_path / "x.bin")
    with pytest.raises(ValueError, match=message):
        HookedViT.from_pretrained("vit_base_patch16_224", weights=tmp_path / "x.bin", **SMALL)


def test_a_torchscript_archive_is_not_run(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 3)), str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(ValueError, match="is a TorchScript archive, which holds code: load it with the library"):
        HookedViT.from_pretrained("vit_base_patch32_clip_224", weights=tmp_path / "ViT-B-32.pt")
