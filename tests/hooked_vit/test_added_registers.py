"""Added registers: no change where nothing attends to them, the same as trained registers of zeros, shared storage."""

import dataclasses

import pytest
import torch
from conftest import KINDS, make_timm, ported
from torch import Tensor

from hooked_vit import HookedViT
from hooked_vit.interventions import block_attention, intervene

# kinds that timm also makes with more registers, and the name of their number
MORE = {"cls": "reg_tokens", "gap_registers_layerscale": "reg_tokens", "clip": "reg_tokens", "dynamic": "reg_tokens",
        "rotary": "num_reg_tokens"}  # fmt: skip


def unattended(model: HookedViT) -> list:
    """No query attends to the added registers."""
    n_prefix = model.token_layout.n_prefix
    keys = list(range(n_prefix - model.cfg.n_added_registers, n_prefix))
    return block_attention(model, [("any", keys)])


@torch.no_grad()
@pytest.mark.parametrize("kind_name", sorted(KINDS))
def test_registers_that_nothing_attends_to_change_nothing(kind_name: str, images: Tensor) -> None:
    model = ported(kind_name)
    more = model.with_registers(2)
    layout, before = more.token_layout, model.token_layout
    assert dataclasses.replace(layout, n_registers=before.n_registers) == before
    assert layout.n_registers == before.n_registers + 2
    logits, cache = model.run_with_cache(images, names_filter="resid_post")
    with intervene(more, unattended(more)):
        found, with_registers = more.run_with_cache(images, names_filter="resid_post")
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
    stream = with_registers["resid_post", -1]
    torch.testing.assert_close(
        stream[:, layout.patches], cache["resid_post", -1][:, before.patches], rtol=1e-5, atol=1e-5
    )
    # attended to, they do change the answer
    assert (more(images) - logits).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("kind_name", MORE)
def test_logits_are_timms_with_registers_of_zeros(kind_name: str, images: Tensor, fused_attention_off: None) -> None:
    kind = KINDS[kind_name]
    source, n = make_timm(kind_name), kind.get(MORE[kind_name], 0)
    wider = make_timm(kind_name, **{MORE[kind_name]: n + 2})
    weights = source.state_dict()
    token = torch.zeros(1, 2, 24)
    weights["reg_token"] = torch.cat([weights["reg_token"], token], dim=1) if n else token
    if "pos_embed" in weights and weights["pos_embed"].shape[1] != wider.pos_embed.shape[1]:
        n_prefix = source.num_prefix_tokens
        parts = weights["pos_embed"].split([n_prefix, 12], dim=1)
        weights["pos_embed"] = torch.cat([parts[0], token, parts[1]], dim=1)
    wider.load_state_dict(weights)
    found = HookedViT.from_timm(source).with_registers(2)(images)
    assert torch.equal(found, HookedViT.from_timm(wider)(images))
    assert torch.equal(found, wider(images))


@torch.no_grad()
def test_a_relative_bias_is_zero_at_registers(images: Tensor) -> None:
    model = ported("relative")
    more = model.with_registers(2)
    bias, wider = (m.blocks[1].attn.relative_bias() for m in (model, more))
    kept = [0, *range(3, 15)]
    assert torch.equal(wider[..., kept, :][..., kept], bias)
    assert not wider[:, :, 1:3].any()
    assert not wider[:, :, :, 1:3].any()


def test_weights_are_shared_and_the_model_is_unchanged() -> None:
    model = ported("gap_registers_layerscale")
    more = model.with_registers(3)
    assert {name: p.data_ptr() for name, p in more.named_parameters()} == {
        name: p.data_ptr() for name, p in model.named_parameters()
    }
    assert (model.cfg.n_added_registers, more.cfg.n_added_registers) == (0, 3)
    assert more.with_registers(2).cfg.n_added_registers == 5
    assert more.token_layout.token_types[:6] == ("register",) * 5 + ("patch",)


@torch.no_grad()
def test_runs_resume_drop_tokens_and_fold(images: Tensor) -> None:
    more = ported("cls").with_registers(2)
    logits, cache = more.run_with_cache(images, lean=True)
    assert torch.equal(more(cache["resid_post", 1], start_at_layer=2), logits)
    torch.testing.assert_close(more.fold_layer_norm()(images), logits, rtol=1e-4, atol=1e-5)
    mask = torch.ones(2, more.token_layout.n_tokens, dtype=torch.bool)
    mask[:, 1:3] = False
    torch.testing.assert_close(more(images, token_mask=mask), ported("cls")(images), rtol=1e-5, atol=1e-6)
    assert not cache["hook_embed"][:, 1:3].any()
    assert not cache["hook_pos_embed"][:, 1:3].any()


@torch.no_grad()
def test_other_image_sizes() -> None:
    model, large = ported("dynamic"), torch.randn(1, 3, 48, 40, generator=torch.Generator().manual_seed(2))
    more = model.with_registers()
    mask = torch.ones(1, more.cfg.token_layout_at(48, 40).n_tokens, dtype=torch.bool)
    mask[:, 3] = False
    torch.testing.assert_close(more(large, token_mask=mask), model(large), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_an_edit_of_a_register_reaches_the_logits(images: Tensor) -> None:
    more = ported("cls").with_registers()

    def edited(stream: Tensor, hook: object) -> Tensor:
        stream[:, 1, ::2] += 1
        return stream

    logits = more(images)
    for name in ("hook_embed", "hook_pos_embed", "hook_tokens", "blocks.1.hook_resid_pre"):
        assert (more.run_with_hooks(images, fwd_hooks=[(name, edited)]) - logits).abs().max() > 1e-5, name


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    with pytest.raises(ValueError, match="expected at least one register to add, got 0"):
        ported("cls").with_registers(0)
