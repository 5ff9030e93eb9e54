"""The vision towers of Qwen3-VL and DeepSeek-V4, against timm's own modules."""

import functools

import pytest
import timm
import torch
from conftest import perturb
from timm.models.deepseek_vit import DeepseekVitClassifier, DeepseekVitEncoder
from timm.models.qwen3_vit import Qwen3VitClassifier, Qwen3VitEncoder
from torch import Tensor, nn

from analyses.attribution import logit_attribution
from analyses.feature_importance import feature_importance
from analyses.patching import activation_patching
from hooked_vit import HookedViT, HookPoint
from hooked_vit.initialisation import freshly_initialised
from hooked_vit.porting import read_config
from hooked_vit.resuming import resume

SHARED = {"img_size": (48, 32), "patch_size": 8, "embed_dim": 36, "depth": 3, "num_heads": 3, "mlp_ratio": 2.5}
QWEN = {**SHARED, "pos_embed_grid_size": 5}
# (class, arguments, what is left out)
VARIANTS = {
    "qwen": (Qwen3VitClassifier, {**QWEN, "num_classes": 7}, None),
    "qwen_features": (Qwen3VitClassifier, {**QWEN, "num_classes": 0, "final_norm": False}, None),
    "qwen_merge": (Qwen3VitClassifier, {**QWEN, "num_classes": 7, "encoder_pool": "merge", "out_features": 20},
                   "the projector 'merger' and the classifier behind it"),
    "qwen_tower": (Qwen3VitEncoder, {**QWEN, "out_features": 20}, "the projector 'merger', which joins"),
    "qwen_mean": (Qwen3VitEncoder, {**QWEN, "global_pool": "avg"}, None),
    "deepseek": (DeepseekVitClassifier, {**SHARED, "num_classes": 7}, None),
    "deepseek_padded": (DeepseekVitClassifier, {**SHARED, "num_classes": 7, "dynamic_img_pad": True,
                                                "final_norm": False}, None),
    "deepseek_align": (DeepseekVitClassifier, {**SHARED, "num_classes": 7, "encoder_pool": "align",
                                               "out_features": 20}, "the projector 'aligner' and the classifier"),
    "deepseek_tower": (DeepseekVitEncoder, {**SHARED, "out_features": 20}, "the projector 'aligner', which joins"),
    "deepseek_mean": (DeepseekVitEncoder, {**SHARED, "global_pool": "avg"}, None),
}  # fmt: skip
SIZES = [(48, 32), (40, 40), (32, 64)]


@functools.cache
def make(variant: str, fused: bool = False) -> nn.Module:
    """A perturbed module of a variant, which tests do not change."""
    cls, arguments, _ = VARIANTS[variant]
    module = perturb(cls(**arguments))
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = fused
    return module


@functools.cache
def ported(variant: str) -> HookedViT:
    return HookedViT.from_timm(make(variant))


@pytest.mark.filterwarnings("ignore:ported without")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_tower_is_exact_at_every_size(variant: str) -> None:
    sizes = [*SIZES, (43, 37)] if variant == "deepseek_padded" else SIZES
    for size in sizes:
        images = torch.randn(2, 3, *size)
        plain = ported(variant).verify(make(variant), images)
        assert plain.bitwise, f"{size}: {plain}"
    fused = make(variant, fused=True)
    assert HookedViT.from_timm(fused).verify(fused, images).relative <= 1e-6


@pytest.mark.parametrize("variant", [name for name, (_, _, left_out) in VARIANTS.items() if left_out])
def test_a_projector_is_left_out_and_said_to_be(variant: str) -> None:
    with pytest.warns(UserWarning, match=f"ported without {VARIANTS[variant][2]}"):
        model = HookedViT.from_timm(make(variant))
    assert model.cfg.n_classes == 0
    with pytest.raises(ValueError, match="this model has no classes"):
        _ = model.W_U


@pytest.mark.parametrize("name", [
    name for module in ("qwen3_vit", "deepseek_vit") for name in timm.list_models(module=module)
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:ported without")
def test_entrypoint_is_exact(name: str, fused_attention_off: None) -> None:
    module = perturb(timm.create_model(name, depth=2, embed_dim=24, num_heads=2, num_classes=5))
    model = HookedViT.from_timm(module)
    size = 4 * model.cfg.patch_size[0]
    assert model.cfg.n_classes == (5 if name.rpartition("_")[2] not in ("merge", "align", "enc") else 0)
    assert model.verify(module, torch.randn(1, 3, size, size)).bitwise


@pytest.mark.parametrize("variant", ["qwen", "deepseek"])
def test_every_hook_point_edited_once_moves_the_logits(variant: str, bad_input: None) -> None:
    model, images = ported(variant), torch.randn(2, 3, 48, 32)
    before = model(images)

    def add_noise(activation: Tensor, hook: HookPoint) -> Tensor:
        noise = torch.randn(activation.shape, generator=torch.Generator().manual_seed(5))
        return activation + (noise.abs() if activation.shape[-1] == 1 else noise * (activation.std() + 0.5))

    names = set(model.hook_dict)
    assert {"blocks.1.attn.hook_rot_q", "blocks.1.attn.hook_rot_k", "ln_final.hook_scale"} <= names
    assert ("ln_pooled.hook_normalized" in names) == (variant == "deepseek")
    for name in names:
        moved = model.run_with_hooks(images, fwd_hooks=[(name, add_noise)])
        assert (moved - before).abs().amax(1).min() > 2e-5 * before.abs().max(), name
    assert torch.equal(model(images), before)


@pytest.mark.parametrize("variant", ["qwen", "deepseek"])
def test_sums_resuming_and_analyses(variant: str) -> None:
    model, images = ported(variant), torch.randn(2, 3, 48, 32)
    logits, cache = model.run_with_cache(images)
    classes = logits.argmax(-1)
    for layer in range(3):
        total = cache["resid_pre", layer] + cache["attn_out", layer] + cache["mlp_out", layer]
        assert torch.equal(total, cache["resid_post", layer])
    assert torch.equal(model(cache["resid_post", 0], start_at_layer=1), logits)
    context = {name: cache[name, 1] for name in ("resid_pre", "k", "v")}
    torch.testing.assert_close(resume(model, "q", 1, cache["q", 1], context), logits, rtol=1e-5, atol=1e-6)
    keep = torch.ones(2, 24, dtype=torch.bool)
    keep[0, 5] = keep[1, 7] = keep[1, 8] = False
    masked, kept = model.run_with_cache(images, token_mask=keep)
    stream = kept["resid_post", 0]
    torch.testing.assert_close(model(stream, start_at_layer=1, token_mask=keep), masked, rtol=1e-5, atol=1e-6)
    assert (masked - logits).abs().max() > 1e-4
    # the mean of the normed patches alone, passed through the norm after the pool, gives the logits again
    normed = cache["ln_final.hook_normalized"] if variant == "deepseek" else cache["resid_post", -1]
    pooled = normed.mean(1, keepdim=True)
    norm = model.ln_pooled if variant == "deepseek" else model.ln_final
    assert norm is not None
    torch.testing.assert_close(norm(pooled)[:, 0] @ model.W_U + model.b_U, logits, rtol=1e-5, atol=1e-6)
    assert feature_importance(model, images, classes).shape == (2, 3, 3, 24)
    found = logit_attribution(model, cache, classes)
    torch.testing.assert_close(found.total, logits.gather(1, classes[:, None])[:, 0], rtol=1e-4, atol=1e-5)
    patched = activation_patching(model, images[:1], images[1:], lambda logits: logits[0, 3], "z")

    def paste(z: Tensor, hook: HookPoint) -> Tensor:
        z[:, :, 2] = cache["z", 1][:1, :, 2]
        return z

    by_hook = model.run_with_hooks(images[1:], fwd_hooks=[(("z", 1), paste)])
    torch.testing.assert_close(patched.values[1, 2], by_hook[0, 3], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.fold_layer_norm()(images), logits, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(freshly_initialised(model, seed=0)(images)).all()


def test_a_class_has_no_fixed_direction_behind_two_norms() -> None:
    assert ported("qwen").tokens_to_residual_directions(3).shape == (36,)
    with pytest.raises(ValueError, match="norms what it has pooled once more"):
        ported("deepseek").tokens_to_residual_directions(3)


def test_bfloat16_is_exact() -> None:
    for variant in ("qwen", "deepseek"):
        cls, arguments, _ = VARIANTS[variant]
        module = perturb(cls(**arguments)).bfloat16()
        model = HookedViT.from_timm(module)
        assert model.verify(module, torch.randn(2, 3, 48, 32).bfloat16()).bitwise


def test_features_that_are_not_pooled_are_refused() -> None:
    for module in (Qwen3VitClassifier(**QWEN, global_pool=""), DeepseekVitEncoder(**SHARED, global_pool="")):
        with pytest.raises(ValueError, match="features that are not pooled: create it with global_pool='avg'"):
            read_config(module)
