"""Loading by name, from files and from modules; each bad input gets an error that says what to do."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import make_timm, perturb
from safetensors.torch import save_file
from timm.models import load_state_dict

from hooked_vit import HookedViT
from hooked_vit.loading import port

ARCHITECTURE = {"img_size": (32, 48), "depth": 2, "num_classes": 7}


@pytest.fixture
def module() -> torch.nn.Module:
    """A small timm model that has a name."""
    return perturb(timm.create_model("vit_tiny_patch16_224", **ARCHITECTURE))


def load(path: Path, **arguments: object) -> HookedViT:
    """Load a file saved from `module`; the number of classes is read off the file."""
    return HookedViT.from_pretrained("vit_tiny_patch16_224", weights=path, img_size=(32, 48), depth=2, **arguments)


def test_the_embedded_model_names_what_it_sees() -> None:
    model = HookedViT.from_pretrained("emoji-vit")
    assert model.cfg.n_layers == 8
    assert len(model.class_names) == 100
    assert model.data_config["mean"] == [0.5, 0.5, 0.5]
    assert not model.training
    assert model.cfg.dtype == torch.float32


def test_a_safetensors_file(module: torch.nn.Module, tmp_path: Path) -> None:
    save_file(module.state_dict(), tmp_path / "x.safetensors")
    model = load(tmp_path / "x.safetensors", class_names=list("abcdefg"))
    assert model.verify(module, torch.randn(2, 3, 32, 48)).bitwise
    assert model.class_names == tuple("abcdefg")


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
def test_a_pickled_file_with_wrapper_and_prefix(
    suffix: str, wrapper: str | None, prefix: str, module: torch.nn.Module, tmp_path: Path
) -> None:
    state = {prefix + name: tensor for name, tensor in module.state_dict().items()}
    path = tmp_path / f"x.{suffix}"
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, path)
    model = load(path)
    assert model.verify(module, torch.randn(1, 3, 32, 48)).bitwise


def test_surplus_keys_are_listed_unless_named(module: torch.nn.Module, tmp_path: Path) -> None:
    extra = {"extra_head.weight": torch.zeros(3), "extra_head.bias": torch.zeros(1), "mask_embed": torch.zeros(2)}
    path = tmp_path / "x.safetensors"
    save_file({**module.state_dict(), **extra}, path)
    with pytest.raises(ValueError, match=r"ignore_keys.*\['extra_head.bias', 'extra_head.weight', 'mask_embed'\]"):
        load(path)
    with pytest.raises(ValueError, match=r"to ignore them\): \['mask_embed'\]$"):
        load(path, ignore_keys=["extra_head.*"])
    assert load(path, ignore_keys=["extra_head.*", "mask_embed"]).verify(module, torch.randn(1, 3, 32, 48)).bitwise
    with pytest.raises(ValueError, match=r"ignore_keys \['nothing.\*'\] match nothing"):
        load(path, ignore_keys=["nothing.*"])


def test_a_file_of_a_training_framework(module: torch.nn.Module, tmp_path: Path) -> None:
    """Lightning's: the model under a prefix, next to a loss and a metric; optimiser states besides."""
    state = {f"net.{name}": tensor for name, tensor in module.state_dict().items()}
    state |= {"loss.weight": torch.ones(7), "accuracy.total": torch.tensor(3)}
    optimiser = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    for suffix in ("ckpt", "pth.tar"):
        path = tmp_path / f"x.{suffix}"
        torch.save({"state_dict": state, "optimizer_states": [optimiser], "optimizer": optimiser, "epoch": 3}, path)
        assert load(path, prefix="net.").verify(module, torch.randn(1, 3, 32, 48)).bitwise
        assert load(path, prefix="net.", ignore_keys=["loss.*"]).cfg.n_layers == 2
        with pytest.raises(ValueError, match=r"keys begin with 'net.': pass prefix='net.', which drops") as error:
            load(path)
        assert len(str(error.value)) < 900, "a summary, not every key"
    with pytest.raises(ValueError, match=r"no key in .* begins with prefix='backbone.'"):
        load(path, prefix="backbone.")


def test_common_prefixes_go_after_ignored_keys(module: torch.nn.Module, tmp_path: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save({"state_dict": {**state, "criterion.weight": torch.ones(7)}}, tmp_path / "x.ckpt")
    assert load(tmp_path / "x.ckpt", ignore_keys=["criterion.*"]).verify(module, torch.randn(1, 3, 32, 48)).bitwise


@pytest.mark.parametrize(
    ("content", "chosen"),
    [
        ({"state_dict": 0, "state_dict_ema": 1}, 1),
        ({"model": 0, "model_ema": 1}, 1),
        ({"model": 0, "state_dict": 1}, 1),
        ({"student": 0, "model": 1}, 1),
        ({"only": 1}, 1),
    ],
)
def test_of_several_state_dicts_timms_choice_is_loaded(content: dict[str, int], chosen: int, tmp_path: Path) -> None:
    modules = [perturb(timm.create_model("vit_tiny_patch16_224", **ARCHITECTURE), seed=n + 1) for n in (0, 1)]
    states = [module.state_dict() for module in modules]
    torch.save({key: states[n] for key, n in content.items()}, tmp_path / "x.pth")
    assert torch.equal(load(tmp_path / "x.pth").embed.cls, states[chosen]["cls_token"][0])
    if set(content) & {"state_dict", "model"}:
        timms = load_state_dict(str(tmp_path / "x.pth"))
        assert torch.equal(timms["cls_token"], states[chosen]["cls_token"])


def test_several_state_dicts_without_a_rule_are_named(module: torch.nn.Module, tmp_path: Path) -> None:
    teacher = {f"backbone.{name}": tensor for name, tensor in module.state_dict().items()}
    student = {name: 0 * tensor for name, tensor in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "epoch": 1}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"holds several state dicts, student, teacher: choose one with weights_key="):
        load(tmp_path / "x.pth")
    model = load(tmp_path / "x.pth", weights_key="teacher", prefix="backbone.")
    assert model.verify(module, torch.randn(1, 3, 32, 48)).bitwise
    with pytest.raises(ValueError, match=r"has no 'mentor' \(weights_key='mentor'\): it holds epoch, student, teacher"):
        load(tmp_path / "x.pth", weights_key="mentor")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pretrained": True}, "from_pretrained always loads weights: leave out pretrained="),
        ({"fold_ln": False}, r"leave out fold_ln=: .* `model.fold_layer_norm\(\)`"),
        ({"prefix": "net."}, "prefix goes with weights="),
        ({"weights_key": "teacher"}, "weights_key goes with weights="),
    ],
)
def test_arguments_of_other_loaders(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HookedViT.from_pretrained("vit_tiny_patch16_224", **arguments)


def test_missing_keys_and_wrong_shapes_are_named(module: torch.nn.Module, tmp_path: Path) -> None:
    state = module.state_dict()
    del state["blocks.1.norm1.weight"]
    state["pos_embed"] = torch.zeros(1, 6, 192)
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(
        ValueError, match=r"it lacks \['blocks.1.norm1.weight'\]; pos_embed is \(1, 6, 192\), not"
    ) as error:
        load(tmp_path / "x.safetensors")
    assert "load with the img_size it was trained at" in str(error.value)


class _Harmful:
    def __reduce__(self) -> tuple:
        return (sys.exit, ("code in a weights file ran",))


def test_files_that_are_not_weights(module: torch.nn.Module, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file(module.state_dict(), whole)
    torch.save(module.state_dict(), tmp_path / "whole.pt")
    torch.save({"model": _Harmful()}, tmp_path / "harmful.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "no_tensors.pt")
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:5000])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("not weights", "utf-8")
    for name in ("cut.safetensors", "cut.pt", "empty.pth", "text.safetensors", "harmful.pt"):
        with pytest.raises(ValueError, match=rf"{name}' cannot be read as weights \(truncated, damaged"):
            load(tmp_path / name)
    with pytest.raises(
        ValueError, match=r"more than tensors\): it references sys.exit, which is not loaded for safety$"
    ):
        load(tmp_path / "harmful.pt")
    with pytest.raises(ValueError, match="holds no state dict but list"):
        load(tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"holds no state dict but a dict with \['epoch', 'lr'\]"):
        load(tmp_path / "no_tensors.pt")
    (tmp_path / "weights.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"is not a weights file: expected one of \.safetensors, \.pt, \.pth, \.bin"):
        load(tmp_path / "weights.npz")
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        load(tmp_path / "absent.safetensors")


def test_a_checkpoint_may_include_its_command_line(module: torch.nn.Module, tmp_path: Path) -> None:
    from argparse import Namespace

    torch.save({"state_dict": module.state_dict(), "args": Namespace(lr=0.1)}, tmp_path / "x.pth")
    assert load(tmp_path / "x.pth").cfg.n_classes == 7


def test_a_hub_model_is_loaded_by_timm(module: torch.nn.Module, tmp_path: Path) -> None:
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 7,
        "model_args": {"img_size": [32, 48], "depth": 2},
        "pretrained_cfg": {"input_size": [3, 32, 48], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.8,
                           "num_classes": 7, "label_names": list("tuvwxyz"), "interpolation": "bilinear"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    # the hub's cache, as after a download; the name is then read without network
    repository = tmp_path / "cache" / "models--owner--a-model"
    shutil.copytree(tmp_path, repository / "snapshots" / ("0" * 40), ignore=shutil.ignore_patterns("cache"))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40, "utf-8")
    of_folder = HookedViT.from_pretrained(f"local-dir:{tmp_path}")
    from_hub = HookedViT.from_pretrained("hf-hub:owner/a-model", cache_dir=tmp_path / "cache")
    for model in (of_folder, from_hub):
        assert model.verify(module, torch.randn(2, 3, 32, 48)).bitwise
        assert tuple(model.data_config["mean"]) == (0.1, 0.2, 0.3)
        assert model.class_names == tuple("tuvwxyz")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_base_patch61_224", "unknown model 'vit_base_patch61_224'; did you mean 'vit_base_patch16_224'"),
        ("emoji_vit", "did you mean 'emoji-vit'"),
        (
            "vit_base_patch16_224.nonsense",
            "'vit_base_patch16_224' has no weights called 'nonsense'; there are: .*augreg",
        ),
        ("swin_tiny_patch4_window7_224.ms_in1k", "not covered: the family SwinTransformer"),
        ("resnet18.a1_in1k", "not covered: the family ResNet"),
    ],
)
def test_names_that_cannot_be_loaded(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HookedViT.from_pretrained(name)


def test_without_network_the_error_says_how_to_use_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, pretrained: bool, **kwargs: object) -> torch.nn.Module:
        if pretrained:
            raise OSError("no network")
        return create(*args, pretrained=pretrained, **kwargs)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(OSError, match="no network") as error:
        HookedViT.from_pretrained("vit_tiny_patch16_224.augreg_in21k")
    assert "weights='model.safetensors'" in error.value.__notes__[0]


def test_the_embedded_model_takes_no_timm_arguments() -> None:
    with pytest.raises(ValueError, match=r"'emoji-vit' takes no timm arguments, got \['img_size'\]"):
        HookedViT.from_pretrained("emoji-vit", img_size=32)
    with pytest.raises(ValueError, match="ignore_keys goes with weights="):
        HookedViT.from_pretrained("emoji-vit", ignore_keys=["x"])


def test_device_and_dtype() -> None:
    model = HookedViT.from_pretrained("emoji-vit", dtype=torch.bfloat16, device="cpu")
    assert model.W_U.dtype == model.cfg.dtype == torch.bfloat16


def test_class_names_are_known_for_imagenet_heads_and_checked() -> None:
    with torch.device("meta"):
        module = timm.create_model("vit_tiny_patch16_224.augreg_in21k_ft_in1k", depth=1)
    assert HookedViT.from_timm(module).class_names[281] == "tabby, tabby cat"
    with torch.device("meta"):
        module = timm.create_model("vit_tiny_patch16_224.augreg_in21k", depth=1)
        own_head = timm.create_model("vit_tiny_patch16_224.augreg_in21k_ft_in1k", depth=1, num_classes=3)
    assert len(set(HookedViT.from_timm(module).class_names)) > 20_000
    assert HookedViT.from_timm(own_head).class_names == ("class 0", "class 1", "class 2")
    with pytest.raises(ValueError, match="expected 3 class names, one for each class, got 2"):
        HookedViT.from_timm(own_head, class_names=["a", "b"])


def test_attention_is_fused_as_it_was_in_the_module(fused_attention_off: None) -> None:
    assert not HookedViT.from_timm(make_timm("cls")).fused_attention


def test_a_port_without_copies_holds_the_modules_tensors() -> None:
    module = make_timm("cls")
    ported = port(module, None, copy=False)
    assert ported.weights.keys() == HookedViT.from_timm(module).state_dict().keys()
    assert ported.weights["head.weight"].data_ptr() == module.head.weight.data_ptr()
    assert port(module, None, copy=True).weights["head.weight"].data_ptr() != module.head.weight.data_ptr()
    assert HookedViT.from_timm(module).head.weight.data_ptr() != module.head.weight.data_ptr()


def test_a_port_has_what_the_model_needs_besides_weights(fused_attention_off: None) -> None:
    module = make_timm("map")
    ported = port(module, list("abcdefg"), copy=False)
    model = HookedViT.from_timm(module, list("abcdefg"))
    assert ported.cfg == model.cfg
    assert list(ported.class_names or ()) == list(model.class_names)
    assert ported.data_config == model.data_config
    assert ported.data_config["input_size"] == (3, 32, 24)
    assert not ported.fused_attention


def test_copies_are_frozen_where_the_modules_tensors_are() -> None:
    frozen = make_timm("cls")
    frozen.head.weight.requires_grad_(False)
    weights = port(frozen, None, copy=True).weights
    assert not weights["head.weight"].requires_grad
    assert weights["head.bias"].requires_grad


@pytest.mark.parametrize("size", [(64, 24), (16, 16)])
@pytest.mark.parametrize("no_embed_class", [False, True])
def test_positions_of_a_file_are_resampled_to_a_given_image_size(
    tmp_path: Path, size: tuple[int, int], no_embed_class: bool
) -> None:
    options = {"depth": 2, "num_classes": 7, "patch_size": 8, "reg_tokens": 1, "no_embed_class": no_embed_class}
    trained = timm.create_model("vit_tiny_patch16_224", img_size=32, **options).eval()
    path = tmp_path / "trained.pth"
    torch.save(trained.state_dict(), path)
    with pytest.warns(UserWarning, match="the positions in .* are resampled to"):
        model = HookedViT.from_pretrained("vit_tiny_patch16_224", weights=path, img_size=size, **options)
    # what timm does with published weights
    published = {"pretrained_cfg_overlay": {"file": str(path), "num_classes": 7, "hf_hub_id": None}, "pretrained": True}
    expected = timm.create_model("vit_tiny_patch16_224", img_size=size, **options, **published).eval()
    images = torch.randn(2, 3, *size)
    assert model.verify(expected, images).relative < 1e-6
    n_prefix = 0 if no_embed_class else 2
    torch.testing.assert_close(model.W_pos[:n_prefix], trained.pos_embed[0, :n_prefix])


def test_positions_of_a_grid_that_is_not_square_are_not_resampled(tmp_path: Path) -> None:
    path = tmp_path / "trained.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", **ARCHITECTURE).state_dict(), path)
    with pytest.raises(ValueError, match=r"pos_embed is \(1, 7, 192\), not \(1, 17, 192\)"):
        HookedViT.from_pretrained("vit_tiny_patch16_224", weights=path, **{**ARCHITECTURE, "img_size": 64})


def test_a_file_without_a_head_gives_a_model_without_classes(tmp_path: Path) -> None:
    module = timm.create_model("vit_tiny_patch16_224", **{**ARCHITECTURE, "num_classes": 0}).eval()
    torch.save(module.state_dict(), tmp_path / "backbone.pth")
    images = torch.randn(2, 3, 32, 48)
    for arguments in ({}, {"num_classes": 0}):
        model = HookedViT.from_pretrained(
            "vit_tiny_patch16_224", weights=tmp_path / "backbone.pth", img_size=(32, 48), depth=2, **arguments
        )
        assert model.cfg.n_classes == 0
        assert model.verify(module, images).relative < 1e-6
    with pytest.raises(ValueError, match=r"it lacks \['head.bias', 'head.weight'\]"):
        HookedViT.from_pretrained("vit_tiny_patch16_224", weights=tmp_path / "backbone.pth", **ARCHITECTURE)
