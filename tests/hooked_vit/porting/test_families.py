"""Every covered timm entrypoint, ported and compared with timm's own logits."""

import pytest
import timm
import torch
from built_models import build, some_of, switch_fused_off
from conftest import KINDS, make_timm
from torch import nn

from hooked_vit import HookedViT
from hooked_vit.covered_models import covered_models
from hooked_vit.porting import read_config, read_weights

COVERED = sorted(set(covered_models().query("family != 'embedded'")["architecture"]))
FAMILIES = (
    "vision_transformer",
    "deit",
    "vision_transformer_hybrid",
    "vitamin",
)  # the others have test files of their own
HERE = sorted(set(covered_models().query("family in @FAMILIES")["architecture"]))
WITH_STEM = {*timm.list_models(module="vision_transformer_hybrid"), *timm.list_models(module="vitamin")}
# The architectures of the paper, with the names timm gives their weights today.
PAPER = [
    "vit_base_patch32_224.augreg_in21k_ft_in1k",
    "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_large_patch16_224.augreg_in21k_ft_in1k",
    "vit_base_patch16_224_miil.in21k_ft_in1k",
    "vit_base_patch16_rpn_224.sw_in1k",
    "deit_base_patch16_224.fb_in1k",
]


def build_small(name: str) -> nn.Module:
    """Two blocks of the full width on a 4 × 3 grid."""
    with torch.device("meta"):
        embed = timm.create_model(name, pretrained=False, depth=1).patch_embed
    height, width = embed.feat_ratio(as_scalar=False)
    return build(name, depth=2, img_size=(4 * height, 3 * width))


def test_the_list_of_covered_entrypoints() -> None:
    tags = [tag for tag in timm.list_pretrained() if tag.split(".")[0] in set(COVERED)]
    assert (len(COVERED), len(HERE)) == (322, 206)
    assert len(tags) >= 527


@pytest.mark.parametrize("name", some_of([name for name in HERE if name not in WITH_STEM]) + some_of(sorted(WITH_STEM)))
def test_entrypoint_is_exact(name: str) -> None:
    module = build_small(name)
    images = torch.randn(2, 3, *module.patch_embed.img_size, generator=torch.Generator().manual_seed(1))
    model = HookedViT.from_timm(module)
    assert model.verify(module, images).relative <= 1e-6, "fused attention"
    switch_fused_off(model, module)
    plain = model.verify(module, images)
    assert plain.bitwise, str(plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_full_size_architecture_of_the_paper_is_exact(name: str) -> None:
    module = build(name)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    model = HookedViT.from_timm(module)
    assert model.verify(module, images).relative <= 1e-6
    switch_fused_off(model, module)
    assert model.verify(module, images).bitwise


def test_every_kind_of_block_and_pool_is_exact(kind: str, images: torch.Tensor) -> None:
    module = make_timm(kind)
    model = HookedViT.from_timm(module)
    switch_fused_off(model, module)
    assert model.verify(module, images).bitwise


def test_the_stream_is_the_sum_of_what_is_written(kind: str, images: torch.Tensor) -> None:
    model = HookedViT.from_timm(make_timm(kind))
    _, cache = model.run_with_cache(images)
    total = cache["hook_tokens"]
    for layer in range(model.cfg.n_layers):
        total = total + cache["attn_out", layer] + cache["mlp_out", layer]
        total_in_order = cache["resid_pre", layer] + cache["attn_out", layer] + cache["mlp_out", layer]
        if model.cfg.parallel_attn_mlp:  # timm adds the two before LayerScale, in other last bits
            torch.testing.assert_close(total_in_order, cache["resid_post", layer], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(total_in_order, cache["resid_post", layer])
    torch.testing.assert_close(total, cache["resid_post", -1], rtol=1e-5, atol=1e-6)


def test_gated_attention_is_exact(images: torch.Tensor) -> None:
    module = make_timm("inner_norms")
    for block in module.blocks:
        block.attn.gate = nn.Linear(24, 24)
    model = HookedViT.from_timm(module)
    assert model.verify(module, images).bitwise
    for name in ("hook_gate", "hook_z_pre"):
        edited = model.run_with_hooks(images, fwd_hooks=[(f"blocks.1.attn.{name}", lambda a, hook: 0.5 * a)])
        assert not torch.equal(edited, model(images))


@pytest.mark.parametrize("pool", ["max", "avgmax"])
def test_rare_pools_are_exact(pool: str, images: torch.Tensor) -> None:
    module = make_timm("cls", global_pool=pool)
    assert HookedViT.from_timm(module).verify(module, images).bitwise


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 0},
        {"num_classes": 11},
        {"img_size": (40, 16)},
        {"depth": 5},
        {"in_chans": 1},
        {"patch_size": (8, 12)},
        {"pos_embed": "none"},
        {"class_token": False, "global_pool": "avg", "no_embed_class": True},
        {"global_pool": "avg", "pool_include_prefix": True, "reg_tokens": 2},
    ],
    ids=str,
)
def test_modules_with_other_arguments_are_exact(changes: dict) -> None:
    module = make_timm("cls", **changes)
    model = HookedViT.from_timm(module)
    images = torch.randn(2, model.cfg.n_channels, *model.cfg.image_size)
    assert model.verify(module, images).bitwise


def test_dynamic_image_sizes_are_exact_at_any_size() -> None:
    module = make_timm("dynamic")
    model = HookedViT.from_timm(module)
    for size in [(32, 24), (24, 56), (64, 8)]:
        assert model.verify(module, torch.randn(2, 3, *size)).bitwise
    padded = make_timm("dynamic", dynamic_img_pad=True, no_embed_class=True)
    assert HookedViT.from_timm(padded).verify(padded, torch.randn(2, 3, 37, 19)).bitwise


@pytest.mark.parametrize("no_embed_class", [False, True])
def test_positions_of_a_padded_size_are_of_whole_patches(no_embed_class: bool) -> None:
    module = make_timm("dynamic", dynamic_img_pad=True, img_size=(37, 27), no_embed_class=no_embed_class)
    model = HookedViT.from_timm(module)
    assert model.token_layout.grid == (5, 4)
    assert model.cfg.position_grid == (4, 3) == module.patch_embed.grid_size
    for size in [(37, 27), (32, 24), (19, 40)]:
        assert model.verify(module, torch.randn(2, 3, *size)).bitwise


def test_an_odd_image_size_is_cropped_as_the_convolution_does() -> None:
    module = make_timm("cls", img_size=(37, 27))
    model = HookedViT.from_timm(module)
    assert model.token_layout.grid == (4, 3)
    assert model.verify(module, torch.randn(2, 3, 37, 27)).bitwise


def test_bfloat16_is_exact() -> None:
    module = make_timm("gap_registers_layerscale").bfloat16()
    model = HookedViT.from_timm(module)
    assert model.cfg.dtype == torch.bfloat16
    assert model.verify(module, torch.randn(2, 3, 32, 24).bfloat16()).bitwise


def test_the_port_shares_no_storage_with_the_module(images: torch.Tensor) -> None:
    module = make_timm("cls")
    model = HookedViT.from_timm(module)
    before = model(images)
    with torch.no_grad():
        module.head.weight.zero_()
    assert torch.equal(model(images), before)


@pytest.mark.parametrize("kind_name", sorted(KINDS))
def test_every_tensor_of_the_module_is_carried_over(kind_name: str) -> None:
    module = make_timm(kind_name)
    model = HookedViT.from_timm(module)
    expected = sum(tensor.numel() for tensor in module.state_dict().values())
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == expected


def test_an_unknown_tensor_is_refused() -> None:
    module = make_timm("cls")
    module.mask_token = nn.Parameter(torch.zeros(1, 24))
    with pytest.raises(ValueError, match="1 tensors of the module have no name in a HookedViT: mask_token"):
        read_weights(module)


class Overlapping(timm.layers.PatchEmbed):
    """A patch embedding of one's own."""


def _with(name: str, part: nn.Module) -> nn.Module:
    module = make_timm("cls")
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, part)
    return module


def mixed_blocks() -> nn.Module:
    """A parallel block after others."""
    module, parallel = make_timm("cls"), make_timm("parallel")
    module.blocks[1] = parallel.blocks[1]
    return module


@pytest.mark.parametrize(
    ("module", "feature"),
    [
        (lambda: timm.create_model("resnet18"), "the family ResNet"),
        (lambda: timm.create_model("samvit_base_patch16_224", depth=1), "VisionTransformerSAM .it attends within wind"),
        (lambda: mixed_blocks(), "block 1 and block 0 differ in"),
        (lambda: make_timm("cls", embed_layer=Overlapping), "a patch embedding by Overlapping"),
        (lambda: make_timm("cls", global_pool=""), "global_pool='', features that are not pooled"),
        (lambda: make_timm("cls", global_pool="prr"), "pooling by AttentionPoolPrr"),
        (lambda: make_timm("cls", act_layer="mish"), "the activation function Mish in block 0"),
        (lambda: _with("head", nn.Sequential(nn.Linear(24, 7))), "a Sequential as the head"),
        (lambda: _with("blocks.1.norm2", nn.BatchNorm1d(24)), "a BatchNorm1d as norm2 of block 1"),
        (lambda: _with("blocks.2.attn.gate", nn.Linear(24, 24)), "block 2 and block 0 differ in gated_attn"),
        (lambda: _with("blocks.2.attn.gate", nn.Linear(24, 24, bias=False)), "gated attention with a bias unlike"),
        (lambda: _with("blocks.1.ls1", timm.layers.LayerScale(24)), "LayerScale on only one sub-layer in block 1"),
        (lambda: _with("blocks.1.mlp.act", nn.SiLU()), "block 1 and block 0 differ in act_fn"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(module, feature: str) -> None:
    with pytest.raises(ValueError, match=f"not covered: .*{feature}"):
        read_config(module())


def test_a_subclass_with_its_own_forward_is_refused() -> None:
    class Twice(timm.models.VisionTransformer):
        def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            return 2 * super().forward_head(x, pre_logits)

    module = Twice(img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=3)
    with pytest.raises(ValueError, match=r"Twice.forward_head, which replaces VisionTransformer's own"):
        read_config(module)
