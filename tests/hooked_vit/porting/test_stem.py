"""Models with a convolutional stem: equal to timm's, and every part of a HookedViT works behind the stem."""

import copy
import pickle

import pytest
import timm
import torch
from built_models import switch_fused_off
from conftest import make_timm
from stem_models import STEMS, make_stem_model
from torch import nn

from analyses.sweep.describe import describe
from hooked_vit import HookedViT
from hooked_vit.hook_axes import hook_axes
from hooked_vit.initialisation import freshly_initialised

IMAGES = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
ENTRYPOINTS = [
    *timm.list_models(module="vision_transformer_hybrid"),
    *timm.list_models(module="vitamin"),
]


@pytest.fixture(params=STEMS)
def stem(request: pytest.FixtureRequest) -> str:
    """Each kind of stem in turn."""
    return request.param


def test_a_model_with_a_stem_is_exact(stem: str) -> None:
    module = make_stem_model(stem)
    model = HookedViT.from_timm(module)
    assert model.verify(module, IMAGES).relative <= 1e-6
    switch_fused_off(model, module)
    assert model.verify(module, IMAGES).bitwise


def test_other_sizes_are_exact_where_timm_takes_them(stem: str) -> None:
    positions = STEMS[stem][2].get("pos_embed") != "none"
    module = make_stem_model(stem, dynamic_img_size=positions)
    model = HookedViT.from_timm(module)
    switch_fused_off(model, module)
    for size in [(64, 48), (32, 80)]:
        assert model.verify(module, torch.randn(2, 3, *size)).bitwise
    with pytest.raises(ValueError, match="divisible into"):
        model(torch.randn(1, 3, 64, 50))


def test_a_padded_feature_map_is_exact() -> None:
    module = make_stem_model("resnet_v2_stem", dynamic_img_size=True, dynamic_img_pad=True)
    model = HookedViT.from_timm(module)
    switch_fused_off(model, module)
    for size in [(64, 48), (36, 44)]:
        assert model.verify(module, torch.randn(2, 3, *size)).bitwise


@pytest.mark.parametrize("changes", [{"img_size": (32, 96)}, {"num_classes": 0}, {"init_values": 0.2}], ids=str)
def test_other_arguments_are_exact(stem: str, changes: dict) -> None:
    module = make_stem_model(stem, **changes)
    model = HookedViT.from_timm(module)
    switch_fused_off(model, module)
    assert model.verify(module, torch.randn(2, 3, *model.cfg.image_size)).bitwise


@pytest.mark.parametrize("name", ENTRYPOINTS)
def test_every_entrypoint_is_covered_and_reads_the_same_architecture(name: str) -> None:
    with torch.device("meta"):
        module = timm.create_model(name, depth=2)
        model = HookedViT.from_timm(module)
    assert model.cfg.token_layout.grid == tuple(module.patch_embed.grid_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "vit_base_mci_224", "vitamin_small_224"])
def test_an_entrypoint_with_its_own_stem_is_exact(name: str) -> None:
    module = timm.create_model(name, depth=1, img_size=(64, 96), num_classes=5).eval()
    model = HookedViT.from_timm(module)
    switch_fused_off(model, module)
    assert model.verify(module, torch.randn(1, 3, 64, 96)).bitwise


@torch.no_grad()
def test_the_feature_map_is_a_hook_point(stem: str) -> None:
    module = make_stem_model(stem)
    model = HookedViT.from_timm(module)
    logits, cache = model.run_with_cache(IMAGES)
    features = module.patch_embed.backbone(IMAGES)
    assert torch.equal(cache["hook_stem"], features[-1] if isinstance(features, list) else features)
    assert len(hook_axes("hook_stem", model.cfg)) == cache["hook_stem"].ndim
    assert torch.equal(cache["hook_patch_embed"], module.patch_embed(IMAGES))
    edited = model.run_with_hooks(IMAGES, fwd_hooks=[("hook_stem", lambda x, hook: 2 * x)])
    assert (edited - logits).abs().max() > 1e-3
    in_place = model.run_with_hooks(IMAGES, fwd_hooks=[("hook_stem", lambda x, hook: x.mul_(2))])
    assert torch.equal(in_place, edited)


def test_the_weights_are_copies(stem: str) -> None:
    module = make_stem_model(stem)
    model = HookedViT.from_timm(module)
    logits = model(IMAGES)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.zero_()
    assert torch.equal(model(IMAGES), logits)


def test_the_stem_stays_in_evaluation_mode(stem: str) -> None:
    model = HookedViT.from_timm(make_stem_model(stem))
    logits = model(IMAGES)
    model.train()
    assert model.training
    assert torch.equal(model(IMAGES), logits)
    assert torch.equal(model(IMAGES), logits), "batch norms must not have changed their statistics"


def test_derived_models_keep_the_stem(stem: str) -> None:
    model = HookedViT.from_timm(make_stem_model(stem))
    logits = model(IMAGES)
    torch.testing.assert_close(model.fold_layer_norm()(IMAGES), logits, rtol=1e-4, atol=1e-5)
    same = model.with_weights(dict(model.named_parameters()))
    assert torch.equal(same(IMAGES), logits)
    two = model.with_class_embeddings(model.W_U[:, :2], model.b_U[:2])
    torch.testing.assert_close(two(IMAGES), logits[:, :2])
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(IMAGES), logits)
        assert copied.cfg == model.cfg


@torch.no_grad()
def test_a_fresh_stem_shares_nothing_and_has_seen_nothing(stem: str) -> None:
    model = HookedViT.from_timm(make_stem_model(stem))
    logits = model(IMAGES)
    fresh = freshly_initialised(model, seed=0)
    assert torch.equal(model(IMAGES), logits)
    assert fresh(IMAGES).isfinite().all()
    assert torch.equal(freshly_initialised(model, seed=0)(IMAGES), fresh(IMAGES))
    drawn = dict(fresh.embed.stem.named_parameters())
    for name, trained in model.embed.stem.named_parameters():
        assert not torch.equal(drawn[name], trained), name
        if trained.ndim > 1 and trained.numel() > 300:
            fan_out = trained[:, 0].numel() / fresh.embed.stem.get_submodule(name.removesuffix(".weight")).groups
            assert drawn[name].std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.2), name
    for name, statistic in fresh.embed.stem.statistics("").items():
        expected = 1.0 if name.endswith("running_var") else 0.0
        assert (statistic == expected).all(), name


def test_the_projection_is_of_the_feature_map(stem: str) -> None:
    model = HookedViT.from_timm(make_stem_model(stem))
    if model.embed.patch is None:
        for name in ("W_E", "b_E"):
            with pytest.raises(AttributeError, match=f"a HookedViT has no '{name}': the stem of this model writes"):
                getattr(model, name)
        return
    _, cache = model.run_with_cache(IMAGES)
    rows, columns = model.cfg.stem.patch_size
    patch = cache["hook_stem"][:, :, rows : 2 * rows, :columns].flatten(1)
    expected = cache["hook_patch_embed"][:, model.token_layout.grid[1]]
    torch.testing.assert_close(patch @ model.W_E + model.b_E, expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_pixels(stem: str) -> None:
    model = HookedViT.from_timm(make_stem_model(stem))
    images = IMAGES.clone().requires_grad_()
    model(images)[:, 3].sum().backward()
    assert (images.grad.flatten(1).abs().amax(dim=1) > 0).all()
    _, _, gradients = model.run_with_gradients(IMAGES, lambda logits: logits[:, 3], "hook_stem")
    assert (gradients["hook_stem"].flatten(1).abs().amax(dim=1) > 0).all()


def test_the_config_describes_the_stem() -> None:
    one, again, other = (
        HookedViT.from_timm(make_stem_model(kind, seed)).cfg
        for kind, seed in (("resnet_v2", 0), ("resnet_v2", 1), ("mobileclip", 0))
    )
    assert one == again
    assert hash(one) == hash(again)
    assert describe(one) == describe(again)
    assert one.stem != other.stem
    assert describe(one) != describe(other)
    model = HookedViT(one)
    assert model(IMAGES).isfinite().all(), "a model from a config alone runs"


def test_the_model_follows_device_and_dtype() -> None:
    module = make_stem_model("resnet")
    model = HookedViT.from_timm(module).to(torch.float64)
    assert model.cfg.dtype is torch.float64
    assert model.verify(module.double(), IMAGES.double()).relative < 1e-12
    with pytest.raises(ValueError, match=r"the input is torch\.float32"):
        model(IMAGES)


def test_what_a_stem_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"an image size of \(60, 48\) that the stride .* does not divide"):
        HookedViT.from_timm(make_stem_model("resnet_v2", img_size=(60, 48)))
    hooked = make_stem_model("resnet")
    next(hooked.patch_embed.backbone.children()).register_forward_hook(lambda module, args, output: 2 * output)
    with pytest.raises(ValueError, match=r"a forward hook on 'patch_embed\.backbone"):
        HookedViT.from_timm(hooked)


def test_a_stem_of_another_stride_at_run_time_is_refused() -> None:
    model = HookedViT.from_timm(make_stem_model("resnet_v2_stem", dynamic_img_size=True))
    model.embed.stem.backbone = nn.Sequential(model.embed.stem.backbone, nn.AvgPool2d(2))
    with pytest.raises(ValueError, match=r"64 × 48 pixels into 4 × 3 patches, not 8 × 6: use a height that is a mult"):
        model(IMAGES)


def test_pooling_before_the_norm_is_caught_by_verify() -> None:
    module = make_stem_model("vitamin")  # timm norms the mean
    wrong = make_stem_model("vitamin", fc_norm=False)
    wrong.load_state_dict({name.replace("fc_norm", "norm") if name.startswith("fc_norm") else name: tensor
                           for name, tensor in module.state_dict().items()})  # fmt: skip
    found = HookedViT.from_timm(wrong).verify(module, IMAGES)
    assert found.relative > 1e-2
    assert found.first_difference == "logits"


def test_the_stem_is_no_part_of_other_models() -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    assert model.embed.stem is None
    assert "hook_stem" not in model.hook_dict
