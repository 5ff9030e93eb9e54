"""Feature importance equals autograd's derivative within the block, from the definition, in every kind of model."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from conftest import make_timm
from torch import Tensor

from analyses.feature_importance.importance import (
    feature_importance,
    importance_from_cache,
    importance_map,
    importance_names,
    saturated_blocks,
)
from hooked_vit import HookedViT

CLASSES = torch.tensor([[5, 0, 2], [1, 6, 2]])


def by_autograd(model: HookedViT, images: Tensor, image: int, label: int, layer: int, double_softmax: bool) -> Tensor:
    """[head patch]: rebuild the block's attention from a leaf pattern, apply the model's own head, differentiate."""
    _, cache = model.run_with_cache(images[[image]])
    block = model.blocks[layer]
    pattern = cache["pattern", layer].clone().requires_grad_()
    v = cache["v", layer].repeat_interleave(model.cfg.n_heads // cache["v", layer].shape[2], dim=2)
    z = torch.einsum("bhqs,bshd->bqhd", pattern, v).flatten(-2)
    if block.attn.ln is not None:
        z = block.attn.ln(z)
    out = block.attn.out(z)
    if block.post_norm:
        out = block.ln1(out)
    elif block.ls1 is not None:
        out = out * block.ls1
    torch.testing.assert_close(out, cache["attn_out", layer])
    # only the head, on attn_out instead of the stream
    logits = model(out, start_at_layer=model.cfg.n_layers)
    if double_softmax:
        logits = logits.softmax(-1)
    loss = F.cross_entropy(logits, torch.tensor([label]))
    (gradient,) = torch.autograd.grad(loss, pattern)
    total = torch.zeros_like(gradient[0, :, 0])
    for query in range(model.token_layout.n_tokens)[model.cfg.read_tokens]:
        total = total - gradient[0, :, query]
    return total[:, model.token_layout.patches]


@pytest.mark.parametrize("double_softmax", [False, True])
def test_matches_the_local_derivative_of_autograd(kind: str, images: Tensor, double_softmax: bool) -> None:
    model, images = HookedViT.from_timm(make_timm(kind)).double(), images.double()
    importance = feature_importance(model, images, CLASSES, double_softmax)
    assert importance.shape == (2, 3, 3, model.cfg.n_heads, 12)
    for image in range(2):
        for place, label in enumerate(CLASSES[image].tolist()):
            for layer in range(3):
                expected = by_autograd(model, images, image, label, layer, double_softmax)
                torch.testing.assert_close(importance[image, place, layer], expected, rtol=1e-6, atol=1e-9)
    assert importance.abs().max() > 1e-4


def test_single_precision_is_close_to_1e6(kind: str, images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm(kind))
    importance = feature_importance(model, images, CLASSES[:, 0])
    for image in range(2):
        for layer in range(3):
            expected = by_autograd(model, images, image, int(CLASSES[image, 0]), layer, False)
            torch.testing.assert_close(importance[image, layer], expected, rtol=1e-5, atol=1e-6)


def test_matches_the_formula_of_the_paper_symbol_by_symbol(images: Tensor) -> None:
    """-(v[s, h] · (W_O[h] g)) with g = d CE(E norm(attn_out[CLS])) / d attn_out[CLS]."""
    model = HookedViT.from_timm(make_timm("swiglu_packed"))
    _, cache = model.run_with_cache(images)
    importance = feature_importance(model, images, CLASSES[:, 1])
    for layer in range(3):
        x = cache["attn_out", layer][:, 0].clone().requires_grad_()
        loss = F.cross_entropy(model.class_logits(x), CLASSES[:, 1], reduction="sum")
        (g,) = torch.autograd.grad(loss, x)
        block = model.blocks[layer]
        for image in range(2):
            for head in range(3):
                for patch in range(12):
                    v = cache["v", layer][image, 4 + patch, head]  # after CLS and three registers
                    value = -(v @ (block.attn.W_O[head] @ (block.ls1 * g[image])))
                    torch.testing.assert_close(importance[image, layer, head, patch], value, rtol=1e-4, atol=1e-6)


def test_several_classes_a_stream_and_a_cache_give_the_same_numbers(kind: str, images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm(kind))
    several = feature_importance(model, images, CLASSES)
    for place in range(3):
        torch.testing.assert_close(feature_importance(model, images, CLASSES[:, place]), several[:, place])
    _, cache = model.run_with_cache(images, names_filter=["hook_tokens", *importance_names(model.cfg)])
    torch.testing.assert_close(importance_from_cache(model, cache, CLASSES), several)
    torch.testing.assert_close(
        feature_importance(model, cache["hook_tokens"], CLASSES, start_at_layer=0), several, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(importance_map(model, images, CLASSES[:, 2]), several[:, 2].sum((1, 2)))


def test_chunks_do_not_change_the_numbers(kind: str, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = HookedViT.from_timm(make_timm(kind))
    whole = feature_importance(model, images, CLASSES)
    monkeypatch.setattr("analyses.feature_importance.importance.CHUNK_ELEMENTS", 1)
    torch.testing.assert_close(feature_importance(model, images, CLASSES), whole)


def test_no_graph_hook_or_gradient_remains(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    with torch.enable_grad():
        importance = feature_importance(model, images, CLASSES)
    assert not importance.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(point.fwd_hooks for point in model.hook_points())
    with torch.inference_mode():
        in_inference_mode = feature_importance(model, images * 1, CLASSES)
    torch.testing.assert_close(in_inference_mode, importance)


def test_other_image_sizes(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("dynamic"))
    larger = torch.randn(2, 3, 40, 48)
    assert feature_importance(model, larger, CLASSES[:, 0]).shape == (2, 3, 3, 30)


@pytest.mark.usefixtures("bad_input")
class TestErrors:
    def test_classes(self, images: Tensor) -> None:
        model = HookedViT.from_timm(make_timm("cls"))
        with pytest.raises(ValueError, match=r"expected a class index for each image, \[2\], or several"):
            feature_importance(model, images, torch.tensor([1]))
        everywhere = feature_importance(model, images, torch.tensor([1, 1]))
        assert torch.equal(feature_importance(model, images, 1), everywhere)
        assert torch.equal(feature_importance(model, images, "class 1"), everywhere)
        with pytest.raises(ValueError, match=r"from 0 to 6, got .*7.*class_index"):
            feature_importance(model, images, torch.tensor([1, 7]))
        with pytest.raises(ValueError, match="no classes"):
            feature_importance(HookedViT.from_timm(make_timm("cls", num_classes=0)), images, CLASSES)

    def test_a_cache_that_lacks_a_hook_point(self, images: Tensor) -> None:
        model = HookedViT.from_timm(make_timm("cls"))
        _, cache = model.run_with_cache(images, names_filter="pattern")
        with pytest.raises(ValueError, match=r"lacks 'blocks.0.attn.hook_v'.*importance_names"):
            importance_from_cache(model, cache, CLASSES)


def test_saturated_logits_are_said_and_other_targets_have_a_gradient(images: Tensor) -> None:
    module = make_timm("cls")
    with torch.no_grad():
        module.head.bias[3] += 200.0  # every vector is surely of class 3
    model, classes = HookedViT.from_timm(module), torch.tensor([3, 3])
    with pytest.warns(UserWarning, match=r"exactly 0 in 3 of 3 blocks for image 0: .* target='logit' or"):
        importance = feature_importance(model, images, classes)
    assert saturated_blocks(importance).all()
    for target in ("logit", "margin"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            importance = feature_importance(model, images, classes, target=target)
        assert not saturated_blocks(importance).any()
        torch.testing.assert_close(
            importance_map(model, images, classes, target=target), importance.sum(dim=(1, 2)), rtol=0, atol=0
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        feature_importance(model, images, torch.tensor([0, 1]))


def test_the_logit_as_target_is_the_derivative_at_the_pattern(images: Tensor) -> None:
    """A slow loop: the head reads a block's attention output, one entry of the pattern at a time is moved."""
    model = HookedViT.from_timm(make_timm("cls")).double()
    images, classes = images.double(), torch.tensor([5, 1])
    found = feature_importance(model, images, classes, target="logit")
    _, cache = model.run_with_cache(images)
    step, n_prefix = 1e-6, model.token_layout.n_prefix
    for layer in range(3):
        attn, pattern, v = model.blocks[layer].attn, cache["pattern", layer], cache["v", layer]
        for head in range(3):
            for patch in (0, 5):
                moved = []
                for sign in (1, -1):
                    changed = pattern.clone()
                    changed[:, head, 0, n_prefix + patch] += sign * step
                    z = torch.einsum("bhqk,bkhd->bqhd", changed, v)
                    logits = model.head_logits(attn.project(z))
                    moved.append(logits.gather(1, classes[:, None])[:, 0])
                expected = (moved[0] - moved[1]) / (2 * step)
                torch.testing.assert_close(found[:, layer, head, patch], expected, rtol=1e-5, atol=1e-8)
