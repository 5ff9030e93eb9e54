"""Heads on CLS and the mean of the patches, and other new heads, compared with timm's features and plain products."""

import dataclasses

import pytest
import torch
from conftest import KINDS, make_timm, ported
from torch import Tensor, nn

from hooked_vit import HookedViT
from hooked_vit.initialisation import freshly_initialised
from hooked_vit.new_head import new_head

WITH_CLS = ["clip", "cls", "dynamic", "no_final_norm", "qk_norm", "swiglu_packed"]


def head_weights(seed: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(48, 5, generator=generator), torch.randn(5, generator=generator)


def published(source: nn.Module, images: Tensor, n_prefix: int) -> Tensor:
    """What DINOv2's linear head reads: the normed CLS token, then the mean of the normed patches."""
    tokens = source.forward_features(images)
    return torch.cat([tokens[:, 0], tokens[:, n_prefix:].mean(dim=1)], dim=1)


@pytest.fixture(params=WITH_CLS)
def both(request: pytest.FixtureRequest) -> HookedViT:
    """A model with a head of two halves."""
    W, b = head_weights()
    return ported(request.param).with_class_embeddings(W, b, class_names=list("abcde"))


@torch.no_grad()
@pytest.mark.parametrize("kind_name", WITH_CLS)
def test_logits_are_those_of_a_linear_layer_on_timms_features(
    kind_name: str, images: Tensor, fused_attention_off: None
) -> None:
    source, (W, b) = make_timm(kind_name), head_weights()
    linear = nn.Linear(48, 5)
    linear.load_state_dict({"weight": W.T, "bias": b})
    model = HookedViT.from_timm(source).with_class_embeddings(W, b)
    features = published(source, images, model.token_layout.n_prefix)
    assert torch.equal(model(images), linear(features))
    logits, cache = model.run_with_cache(images)
    assert torch.equal(logits, linear(features))
    assert torch.equal(cache["hook_pooled"], features)
    assert model.cfg.pool == "cls_and_mean"
    assert model.head.weight.shape == (5, 48)


def test_registers_are_not_in_the_mean(images: Tensor) -> None:
    model = ported("swiglu_packed")
    assert model.token_layout.n_prefix == 4
    assert KINDS["swiglu_packed"]["reg_tokens"] == 3
    model = model.with_class_embeddings(*head_weights())
    logits, cache = model.run_with_cache(images, names_filter=("resid_post", -1))
    stream = cache["resid_post", -1].clone()
    stream[:, 1:4] = 7.0
    torch.testing.assert_close(model.head_logits(stream), logits)
    stream[:, 4, :9] += 5.0
    assert (model.head_logits(stream) - logits).abs().max() > 1e-3


def test_the_halves_are_models_whose_logits_sum_to_the_logits(both: HookedViT, images: Tensor) -> None:
    cls, mean = both.class_half("cls"), both.class_half("mean")
    torch.testing.assert_close(cls(images) + mean(images), both(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cls.W_U + mean.W_U, both.W_U)
    torch.testing.assert_close(torch.cat([cls.W_U, mean.W_U]), head_weights()[0])
    assert (cls.cfg.pool, mean.cfg.pool) == ("cls", "avg")
    assert cls.class_names == both.class_names


def test_a_vector_is_projected_as_if_it_were_at_every_token(both: HookedViT) -> None:
    vectors = torch.randn(2, 3, 24)
    with_halves = both.class_half("cls").class_logits(vectors) + both.class_half("mean").class_logits(vectors)
    torch.testing.assert_close(both.class_logits(vectors), with_halves, rtol=1e-4, atol=1e-4)
    everywhere = vectors[:, :1].expand(-1, both.cfg.n_ctx, -1)
    torch.testing.assert_close(both.class_logits(vectors[:, 0]), both.head_logits(everywhere), rtol=1e-4, atol=1e-4)


def test_masked_runs_pool_the_kept_patches(both: HookedViT, images: Tensor) -> None:
    n_prefix, n_ctx = both.token_layout.n_prefix, both.cfg.n_ctx
    keep = torch.ones(2, n_ctx, dtype=torch.bool)
    keep[0, n_prefix + 1 :: 2] = False
    keep[1, n_prefix + 3 :] = False
    masked = both(images, token_mask=keep)
    for index in range(2):
        # one image at a time there is no padding
        alone = both(images[index : index + 1], token_mask=keep[index : index + 1])
        torch.testing.assert_close(masked[index], alone[0], rtol=1e-4, atol=1e-5)
    _, cache = both.run_with_cache(images[:1], token_mask=keep[:1], names_filter=[("resid_post", -1), "hook_pooled"])
    stream = cache["resid_post", -1] if both.ln_final is None else both.ln_final.fused(cache["resid_post", -1])
    expected = torch.cat([stream[:, 0], stream[:, n_prefix:].mean(dim=1)], dim=1)
    torch.testing.assert_close(cache["hook_pooled"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("bad_input")
def test_a_mask_must_keep_cls_and_a_patch(both: HookedViT, images: Tensor) -> None:
    keep = torch.ones(2, both.cfg.n_ctx, dtype=torch.bool)
    keep[1, both.token_layout.patches] = False
    with pytest.raises(ValueError, match="image 1: keep CLS and at least one patch"):
        both(images, token_mask=keep)
    keep = torch.ones(2, both.cfg.n_ctx, dtype=torch.bool)
    keep[0, 0] = False
    with pytest.raises(ValueError, match="image 0: keep CLS and at least one patch"):
        both(images, token_mask=keep)


def test_folding_norms_keeps_the_logits(both: HookedViT, images: Tensor) -> None:
    torch.testing.assert_close(both.fold_layer_norm()(images), both(images), rtol=1e-3, atol=1e-4)


def test_every_hook_point_moves_the_logits(both: HookedViT, images: Tensor) -> None:
    logits = both(images)
    for name in ("hook_pooled", "hook_logits", "blocks.2.mlp.hook_post"):
        edited = both.run_with_hooks(images, fwd_hooks=[(name, lambda activation, hook: activation * 1.5)])
        assert (edited - logits).abs().max() > 1e-4, name


def test_other_ways_to_make_it(both: HookedViT, images: Tensor) -> None:
    null = freshly_initialised(both, seed=0)
    assert null(images).shape == (2, 5)
    again = both.with_class_embeddings(*head_weights(seed=9))
    assert again.cfg.pool == "cls_and_mean"
    one = both.with_class_embeddings(head_weights()[0][:, :1])
    assert one.with_two_classes()(images).shape == (2, 2)
    no_classes = HookedViT(dataclasses.replace(both.cfg, n_classes=0))
    assert no_classes(images).shape == (2, 48)


@pytest.mark.parametrize("kind_name", ["cls", "distilled", "gap_registers_layerscale", "map"])
@pytest.mark.parametrize("pool", ["cls", "avg"])
def test_a_new_head_reads_the_tokens_that_it_names(kind_name: str, pool: str, images: Tensor) -> None:
    source, model = make_timm(kind_name), ported(kind_name)
    W = head_weights()[0][:24]
    if pool == "cls" and not model.cfg.has_cls:
        with pytest.raises(ValueError, match=r"pool='cls' needs a CLS token.*pool='avg'"):
            model.with_class_embeddings(W, pool="cls")
        return
    tokens = source.forward_features(images)
    read = tokens[:, 0] if pool == "cls" else tokens[:, model.token_layout.n_prefix :].mean(dim=1)
    read = source.fc_norm(read)  # an identity unless the model norms after pooling
    torch.testing.assert_close(model.with_class_embeddings(W, pool=pool)(images), read @ W, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    model, (W, b) = ported("cls"), head_weights()
    both = model.with_class_embeddings(W, b)
    with pytest.raises(ValueError, match=r"with d_model = 24, got \(47, 5\)$"):
        model.with_class_embeddings(W[1:])
    with pytest.raises(ValueError, match=r"got \(5, 48\); pass W.T"):
        model.with_class_embeddings(W.T)
    with pytest.raises(ValueError, match=r"W must be \[48 n_classes\].*pool='cls' or pool='avg'"):
        both.with_class_embeddings(W[:24])
    with pytest.raises(ValueError, match=r"with d_model = 24, got \(48, 5\)"):
        model.with_class_embeddings(W, pool="cls")
    with pytest.raises(ValueError, match=r"2 d_model = 48, CLS and the mean of the patches, got \(24, 5\)$"):
        model.with_class_embeddings(W[:24], pool="cls_and_mean")
    with pytest.raises(ValueError, match=r"'cls', 'avg', 'cls_and_mean' or None, got 'map'"):
        model.with_class_embeddings(W, pool="map")
    with pytest.raises(ValueError, match="norms after pooling"):
        ported("inner_norms").with_class_embeddings(W)
    with pytest.raises(ValueError, match="needs a CLS token"):
        ported("map").with_class_embeddings(W)
    with pytest.raises(ValueError, match="this model's pooling is 'cls'"):
        model.class_half("cls")
    with pytest.raises(ValueError, match="half is 'cls' or 'mean', got 'avg'"):
        both.class_half("avg")
    with pytest.raises(ValueError, match="one number for each of the 5 classes"):
        new_head(model.cfg, W, b[:3], None)
