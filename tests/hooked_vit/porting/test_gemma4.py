"""The vision tower of Gemma 4, against timm's own module."""

import functools

import pytest
import timm
import torch
from conftest import perturb
from flexible_models import make_sequences
from timm.models.gemma4_vit import Gemma4VitClassifier, Gemma4VitEncoder
from torch import Tensor, nn

from analyses.attribution import attribution_names, logit_attribution
from analyses.feature_importance import feature_importance
from analyses.patching import activation_patching
from analyses.projection import project
from hooked_vit import HookedViT, HookPoint
from hooked_vit.initialisation import freshly_initialised
from hooked_vit.porting import read_config
from hooked_vit.resuming import RESUMABLE, resume

ARGUMENTS = {"patch_size": (8, 6), "embed_dim": 36, "depth": 3, "num_heads": 4, "head_dim": 8, "num_kv_heads": 2,
             "intermediate_size": 50, "position_embedding_size": 13}  # fmt: skip
# (class, further arguments, what is left out)
VARIANTS = {
    "classifier": (Gemma4VitClassifier, {"num_classes": 7}, None),
    "without_norm": (Gemma4VitClassifier, {"num_classes": 7, "num_kv_heads": 4, "final_norm": False,
                                           "use_clipped_linears": True}, None),
    "mean": (Gemma4VitEncoder, {"global_pool": "avg"}, None),
    "soft": (Gemma4VitEncoder, {"standardize": True, "pooling_kernel_size": 2}, "the pool 'soft', which averages"),
    "soft_classifier": (Gemma4VitClassifier, {"encoder_pool": "soft", "num_classes": 7, "pooling_kernel_size": 2},
                        "the pool 'soft' and the classifier behind it"),
}  # fmt: skip


@functools.cache
def make(variant: str, fused: bool = False) -> nn.Module:
    """A perturbed module of a variant, which tests do not change."""
    cls, arguments, _ = VARIANTS[variant]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = perturb(cls(**{**ARGUMENTS, **arguments}))
    module.pretrained_cfg = {"input_size": (3, 32, 36)}
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = fused
    return module


@functools.cache
def ported(variant: str) -> HookedViT:
    return HookedViT.from_timm(make(variant))


def sequences() -> dict[str, Tensor]:
    """Three images of different grids, of pixels from 0 to 1, each with padding."""
    batch = make_sequences([(4, 2), (2, 6), (6, 2)])
    return {**batch, "patches": batch["patches"].sigmoid()}


@pytest.mark.filterwarnings("ignore:ported without")
@pytest.mark.parametrize("variant", VARIANTS)
def test_images_and_sequences_are_exact(variant: str) -> None:
    batches = [torch.rand(2, 3, *size) for size in [(32, 36), (64, 24)]] + [sequences()]
    for batch in batches:
        plain = ported(variant).verify(make(variant), batch)
        assert plain.bitwise, str(plain)
    fused = make(variant, fused=True)
    assert HookedViT.from_timm(fused).verify(fused, sequences()).relative <= 1e-6


@pytest.mark.parametrize("variant", ["soft", "soft_classifier"])
def test_the_soft_pool_is_left_out_and_said_to_be(variant: str) -> None:
    with pytest.warns(UserWarning, match=f"ported without {VARIANTS[variant][2]}"):
        assert HookedViT.from_timm(make(variant)).cfg.n_classes == 0


@pytest.mark.parametrize("name", timm.list_models(module="gemma4_vit"))
@pytest.mark.filterwarnings("ignore:ported without")
def test_entrypoint_is_exact(name: str, fused_attention_off: None) -> None:
    small = {"depth": 2, "embed_dim": 24, "num_heads": 2, "head_dim": 12, "intermediate_size": 40}
    module = perturb(timm.create_model(name, num_classes=5, position_embedding_size=9, **small))
    model = HookedViT.from_timm(module)
    assert model.cfg.image_size == (768, 768)
    assert model.verify(module, torch.rand(1, 3, 48, 96)).bitwise


def test_every_hook_point_edited_once_moves_the_logits(bad_input: None) -> None:
    model = ported("classifier")

    def add_noise(activation: Tensor, hook: HookPoint) -> Tensor:
        noise = torch.randn(activation.shape, generator=torch.Generator().manual_seed(5))
        return activation + (noise.abs() if activation.shape[-1] == 1 else noise * (activation.std() + 0.5))

    own = ["ln1_post.hook_scale", "ln2_post.hook_normalized", "attn.v_norm.hook_scale", "attn.hook_v_pre",
           "attn.hook_rot_k", "attn.q_norm.hook_normalized"]  # fmt: skip
    assert {f"blocks.1.{name}" for name in own} <= set(model.hook_dict)
    images = torch.rand(2, 3, 32, 36)
    before = model(images)
    for name in model.hook_dict:
        moved = model.run_with_hooks(images, fwd_hooks=[(name, add_noise)])
        if name.endswith(".ln1.hook_scale"):
            # queries, keys and values are normed again, which takes out what ln1 divides by, but for its epsilon
            assert (moved - before).abs().max() < 1e-2 * before.abs().max()
            continue
        assert (moved - before).abs().amax(1).min() > 2e-5 * before.abs().max(), name
    assert torch.equal(model(images), before)


def test_what_is_added_is_behind_the_second_norm() -> None:
    model, images = ported("classifier"), torch.rand(2, 3, 32, 36)
    logits, cache = model.run_with_cache(images, names_filter=model.hook_names())
    for layer, block in enumerate(model.blocks):
        assert torch.equal(cache["attn_out", layer], cache[f"blocks.{layer}.ln1_post.hook_normalized"])
        middle = cache["resid_pre", layer] + cache["attn_out", layer]
        assert torch.equal(middle, cache["resid_mid", layer])
        assert torch.equal(middle + cache["mlp_out", layer], cache["resid_post", layer])
        shares = cache["result", layer].sum(-2)
        torch.testing.assert_close(shares, cache["attn_out", layer], rtol=1e-4, atol=1e-5)
        pattern, v = cache["pattern", layer], block.attn.for_query_heads(cache["v", layer], dim=2)
        mix = (pattern @ v.transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(mix, cache["z", layer], rtol=1e-4, atol=1e-5)
    neurons = cache.stack_neuron_results(-1).sum(0)
    torch.testing.assert_close(neurons, sum(cache["mlp_out", layer] for layer in range(3)), rtol=1e-4, atol=1e-4)
    assert torch.equal(model(cache["resid_post", 1], start_at_layer=2), logits)


def test_resuming_folding_and_fresh_weights() -> None:
    model, images = ported("classifier"), torch.rand(2, 3, 32, 36)
    logits, cache = model.run_with_cache(images)
    for stream, needed in RESUMABLE.items():
        context = {name: cache[name, 1] for name in needed}
        torch.testing.assert_close(resume(model, stream, 1, cache[stream, 1], context), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.fold_layer_norm()(images), logits, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(freshly_initialised(model, seed=0)(images)).all()
    with pytest.raises(ValueError, match="these blocks norm what they write"):
        model.accumulated_bias(1)


def test_analyses_give_the_numbers_of_their_definitions() -> None:
    model, images = ported("classifier"), torch.rand(2, 3, 32, 36)
    logits, cache = model.run_with_cache(images, names_filter=attribution_names(model.cfg))
    classes = logits.argmax(-1)
    found = logit_attribution(model, cache, classes)
    torch.testing.assert_close(found.total, logits.gather(1, classes[:, None])[:, 0], rtol=1e-4, atol=1e-5)
    _, cache = model.run_with_cache(images)
    assert project(model, cache, stream="result", labels=classes, k=2).rank.shape == (3, 2, 24, 4)
    # feature importance by its definition: the derivative of the cross-entropy of a block's own output
    block, layer = model.blocks[1], 1
    pattern = cache["pattern", layer].clone().requires_grad_()
    v = block.attn.for_query_heads(cache["v", layer], dim=2).transpose(1, 2)
    out = block.write_attn((pattern @ v).transpose(1, 2))
    norm = model.ln_final
    assert norm is not None
    class_logits = norm.fused(out.mean(1)) @ model.W_U + model.b_U
    loss = nn.functional.cross_entropy(class_logits, classes, reduction="sum")
    expected = -torch.autograd.grad(loss, pattern)[0].sum(2)
    torch.testing.assert_close(feature_importance(model, images, classes)[:, 1], expected, rtol=1e-3, atol=1e-6)
    patched = activation_patching(model, images[:1], images[1:], lambda logits: logits[0, 3], "z")

    def paste(z: Tensor, hook: HookPoint) -> Tensor:
        z[:, :, 2] = cache["z", 1][:1, :, 2]
        return z

    by_hook = model.run_with_hooks(images[1:], fwd_hooks=[(("z", 1), paste)])
    torch.testing.assert_close(patched.values[1, 2], by_hook[0, 3], rtol=1e-4, atol=1e-5)


def test_finite_bounds_are_refused() -> None:
    cls, arguments, _ = VARIANTS["without_norm"]
    module = cls(**{**ARGUMENTS, **arguments})
    module.encoder.blocks[1].mlp.up_proj.output_max.fill_(3.0)
    with pytest.raises(ValueError, match=r"clipped to finite bounds in mlp.up_proj of block 1: what heads and neurons"):
        read_config(module)
    module.set_clamp_enabled(False)
    assert read_config(module).sandwich_norm


def test_bfloat16_is_exact() -> None:
    module = perturb(Gemma4VitClassifier(**ARGUMENTS, num_classes=7)).bfloat16()
    assert HookedViT.from_timm(module).verify(module, torch.rand(2, 3, 32, 36).bfloat16()).bitwise
