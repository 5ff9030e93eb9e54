"""Folding norms leaves the logits unchanged."""

import pytest
import torch
from conftest import make_timm

from hooked_vit import HookedViT


def test_logits_stay_equal(kind: str, images: torch.Tensor) -> None:
    model = HookedViT.from_timm(make_timm(kind))
    before = model(images)
    folded = model.fold_layer_norm()
    assert (folded(images) - before).abs().max() <= 1e-5 * before.abs().max()
    assert torch.equal(model(images), before), "the model itself is left as it is"


def test_folded_norms_are_plain_and_their_readers_have_the_weights() -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    folded = model.fold_layer_norm()
    for block, plain in zip(model.blocks, folded.blocks, strict=True):
        for norm in (plain.ln1, plain.ln2):
            assert torch.equal(norm.weight, torch.ones(24))
            assert torch.equal(norm.bias, torch.zeros(24))
        torch.testing.assert_close(plain.attn.W_V[1], block.ln1.weight[:, None] * block.attn.W_V[1])
        torch.testing.assert_close(plain.mlp.b_in, block.mlp.b_in + block.ln2.bias @ block.mlp.W_in)
    torch.testing.assert_close(folded.W_U, model.ln_final.weight[:, None] * model.W_U)


def test_folding_adds_missing_biases(images: torch.Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls", qkv_bias=False, proj_bias=False))
    folded = model.fold_layer_norm()
    assert not model.cfg.qkv_bias
    assert folded.cfg.qkv_bias
    assert folded.blocks[0].attn.b_Q.abs().max() > 0
    torch.testing.assert_close(folded(images), model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind_name", ["post_norm", "clip"])
def test_norms_that_write_to_the_stream_are_kept(kind_name: str) -> None:
    model = HookedViT.from_timm(make_timm(kind_name))
    folded = model.fold_layer_norm()
    if kind_name == "post_norm":
        assert torch.equal(folded.blocks[0].ln1.weight, model.blocks[0].ln1.weight)
    else:
        assert torch.equal(folded.ln_pre.weight, model.ln_pre.weight)


def test_nothing_is_folded_past_a_maximum_over_tokens(images: torch.Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls", global_pool="max", fc_norm=False))
    folded = model.fold_layer_norm()
    assert torch.equal(folded.ln_final.weight, model.ln_final.weight)
    torch.testing.assert_close(folded(images), model(images), rtol=1e-5, atol=1e-5)
