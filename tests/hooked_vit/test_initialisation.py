"""A freshly initialised model has timm's distributions, and the given model is unchanged."""

import conftest
import pytest
import timm
import torch
from conftest import KINDS, make_timm

from hooked_vit import HookedViT
from hooked_vit.initialisation import freshly_initialised


def as_timm_initialises(kind: str, monkeypatch: pytest.MonkeyPatch) -> HookedViT:
    """timm's own draw, ported; wide enough that a deviation can be measured."""
    monkeypatch.setattr(conftest, "perturb", lambda module, seed=0: module.eval())
    torch.manual_seed(0)
    return HookedViT.from_timm(make_timm(kind, embed_dim=120))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"rotary", "relative"}))
def test_every_parameter_is_drawn_as_timm_draws_it(kind, monkeypatch):
    timms = as_timm_initialises(kind, monkeypatch)
    trained = HookedViT.from_timm(conftest.make_timm(kind, embed_dim=120))
    fresh = freshly_initialised(trained, seed=1, layer_scale=KINDS[kind].get("init_values") or 1e-5)
    by_timm = dict(timms.named_parameters())
    for name, drawn in fresh.named_parameters():
        expected = by_timm[name]
        for mine, reference in zip(halves(drawn), halves(expected), strict=True):
            if reference.std(correction=0) == 0:
                assert torch.equal(mine, reference), name
                continue
            # four standard errors of the ratio of two deviations
            tolerance = 4 * reference.numel() ** -0.5
            assert mine.std() / reference.std() == pytest.approx(1, rel=tolerance), name
            assert mine.mean().abs() < 5 * reference.std() * reference.numel() ** -0.5, name
            assert not torch.equal(mine, reference), name


@pytest.mark.parametrize("kind", ["rotary", "relative"])
def test_other_families_are_drawn_as_a_vision_transformer(kind):
    trained = HookedViT.from_timm(make_timm(kind, embed_dim=120))
    for name, drawn in freshly_initialised(trained, seed=1).named_parameters():
        if name.startswith("blocks") and name.endswith("bias"):
            assert not drawn.any() or name.endswith("mlp.gate.bias"), name
        elif drawn.ndim == 2 and "gate" not in name and name.startswith("blocks"):
            assert drawn.detach().std() == pytest.approx(0.02, rel=4 * drawn.numel() ** -0.5), name


def test_learnt_frequencies_are_drawn_as_timm_draws_them():
    module = timm.create_model("vit_small_patch16_rope_mixed_224", depth=2, img_size=32)
    trained = HookedViT.from_timm(module)
    fresh = freshly_initialised(trained, seed=1).rotary.rope.freqs
    # of each pair, the squares sum to the square of the magnitude, whatever the direction
    torch.testing.assert_close(fresh.square().sum(0), module.rope.freqs.square().sum(0))
    assert not torch.equal(fresh, module.rope.freqs)
    assert torch.equal(fresh, freshly_initialised(trained, seed=1).rotary.rope.freqs)


def halves(parameter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A packed gate differs from its other half."""
    first, second = parameter.detach().flatten().chunk(2)
    return first, second


def test_the_given_model_is_unchanged(kind, images):
    trained = HookedViT.from_timm(make_timm(kind))
    before = {name: parameter.clone() for name, parameter in trained.named_parameters()}
    logits = trained(images)
    null = freshly_initialised(trained, seed=0)
    assert all(torch.equal(before[name], parameter) for name, parameter in trained.named_parameters())
    assert torch.equal(trained(images), logits)
    shared = {p.data_ptr() for p in trained.parameters()} & {p.data_ptr() for p in null.parameters()}
    assert not shared
    assert null.cfg == trained.cfg
    assert null.class_names == trained.class_names
    assert null(images).isfinite().all()


def test_draws_depend_only_on_the_seed():
    trained = HookedViT.from_timm(make_timm("cls"))
    first = freshly_initialised(trained, seed=0)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again, other = freshly_initialised(trained, seed=0), freshly_initialised(trained, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.W_Q, again.W_Q)
    assert not torch.equal(first.W_Q, other.W_Q)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(freshly_initialised(trained, generator).W_Q, first.W_Q)
    assert not torch.equal(freshly_initialised(trained, generator).W_Q, first.W_Q)


def test_dtype_and_frozen_parameters_carry_over():
    trained = HookedViT.from_timm(make_timm("cls")).to(torch.bfloat16)
    trained.embed.patch.weight.requires_grad_(False)
    null = freshly_initialised(trained, seed=0)
    assert null.cfg.dtype is torch.bfloat16
    assert not null.embed.patch.weight.requires_grad
    assert null.blocks[0].attn.qkv.weight.requires_grad


def test_it_shares_preprocessing():
    trained = HookedViT.from_pretrained("emoji-vit")
    assert freshly_initialised(trained, seed=0).data_config == trained.data_config


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a generator elsewhere needs a device")
def test_a_generator_on_a_device_is_refused():
    with pytest.raises(ValueError, match="expected a generator on the CPU"):
        freshly_initialised(HookedViT.from_timm(make_timm("cls")), torch.Generator("cuda"))
