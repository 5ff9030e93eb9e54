"""Analyses of a head on CLS and the mean of the patches: compared with autograd or loops over tokens."""

import pytest
import torch
import torch.nn.functional as F
from attention_by_hand import patterns_and_gradients
from conftest import make_timm
from torch import Tensor

from analyses.attribution import attribution_names, logit_attribution
from analyses.faithfulness.removal import removal_curve, removal_order
from analyses.feature_importance import feature_importance, gradient_attention, raw_attention
from analyses.feature_importance.attention_maps import attention_rollout
from analyses.feature_importance.class_gradients import class_gradients
from analyses.identifiability import Identifiability
from analyses.projection import project
from analyses.sweep import sweep
from hooked_vit import HookedViT

CLASSES = torch.tensor([[4, 0], [1, 3]])
LABELS = CLASSES[:, 0]


@pytest.fixture(params=["cls", "swiglu_packed"])  # without registers, with three
def model(request: pytest.FixtureRequest) -> HookedViT:
    generator = torch.Generator().manual_seed(3)
    W, b = torch.randn(48, 5, generator=generator), torch.randn(5, generator=generator)
    return HookedViT.from_timm(make_timm(request.param)).with_class_embeddings(W, b).double()


@pytest.mark.parametrize("target", ["cross_entropy", "logit", "margin"])
def test_gradients_are_those_of_autograd(model: HookedViT, images: Tensor, target: str) -> None:
    stream = model(images.double(), stop_at_layer=2).detach()
    found = class_gradients(model, stream, CLASSES, target=target)
    for place in range(2):
        leaf = stream.clone().requires_grad_()
        with torch.enable_grad():
            logits, k = model(leaf, start_at_layer=3), CLASSES[:, place]
            own = logits.gather(1, k[:, None])[:, 0]
            others = logits.scatter(1, k[:, None], -torch.inf).max(dim=1).values
            losses = {
                "cross_entropy": F.cross_entropy(logits, k, reduction="sum"),
                "logit": -own.sum(),
                "margin": (others - own).sum(),
            }
            losses[target].backward()
        torch.testing.assert_close(found[:, place], leaf.grad, rtol=1e-6, atol=1e-10)
        assert not leaf.grad[:, model.token_layout.registers].any()


def test_importance_is_the_local_derivative(model: HookedViT, images: Tensor) -> None:
    images = images.double()
    importance = feature_importance(model, images, CLASSES)
    _, cache = model.run_with_cache(images)
    for layer, block in enumerate(model.blocks):
        pattern = cache["pattern", layer].clone().requires_grad_()
        with torch.enable_grad():
            z = torch.einsum("bhqs,bshd->bqhd", pattern, cache["v", layer]).flatten(-2)
            out = block.attn.out(z) if block.ls1 is None else block.attn.out(z) * block.ls1
            logits = model(out, start_at_layer=model.cfg.n_layers)
            for place in range(2):
                loss = F.cross_entropy(logits, CLASSES[:, place], reduction="sum")
                (gradient,) = torch.autograd.grad(loss, pattern, retain_graph=True)
                expected = -gradient.sum(dim=2)[:, :, model.token_layout.patches]
                torch.testing.assert_close(importance[:, place, layer], expected, rtol=1e-6, atol=1e-9)


def test_attribution_sums_to_the_logit_and_matches_removing_a_part(model: HookedViT, images: Tensor) -> None:
    images = images.double()
    names = attribution_names(model.cfg, neurons=True, sources=True)
    with torch.no_grad():
        logits, cache = model.run_with_cache(images, names_filter=names)
        parts = logit_attribution(model, cache, LABELS, neurons=True, sources=True)
        logit = logits.gather(1, LABELS[:, None])[:, 0]
        torch.testing.assert_close(parts.logit, logit)
        torch.testing.assert_close(parts.total, logit, rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(parts.mlp_bias + parts.neuron.sum(-1), parts.mlp, rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(parts.source.sum(-1) + parts.source_bias, parts.head, rtol=1e-10, atol=1e-11)
        scale, written = cache["ln_final.hook_scale"], cache["mlp_out", 1]
        hooks = [
            ("blocks.2.hook_resid_post", lambda x, hook: x - written),
            ("ln_final.hook_scale", lambda x, hook: scale),
        ]
        without = model.run_with_hooks(images, fwd_hooks=hooks).gather(1, LABELS[:, None])[:, 0]
        torch.testing.assert_close(logit - without, parts.mlp[1], rtol=1e-9, atol=1e-11)


def test_attention_maps_weigh_cls_as_much_as_all_patches(model: HookedViT, images: Tensor) -> None:
    images, n_prefix = images.double(), model.token_layout.n_prefix
    raw, rollout = raw_attention(model, images, LABELS), attention_rollout(model, images, LABELS)
    weighed = gradient_attention(model, images, LABELS)
    patterns, gradients = patterns_and_gradients(model, images, LABELS)
    for image in range(2):

        def read(matrix: Tensor) -> Tensor:
            return ((matrix[0] + matrix[n_prefix:].mean(dim=0)) / 2)[n_prefix:]

        torch.testing.assert_close(raw[image], read(patterns[image][-1].mean(0)))
        product = torch.eye(model.token_layout.n_tokens, dtype=torch.double)
        for pattern in patterns[image]:
            step = pattern.mean(0) + torch.eye(len(product), dtype=torch.double)
            product = (step / step.sum(-1, keepdim=True)) @ product
        torch.testing.assert_close(rollout[image], read(product))
        expected = torch.zeros(model.token_layout.n_patches, dtype=torch.double)
        for pattern, gradient in zip(patterns[image], gradients[image], strict=True):
            for query in [0, *range(n_prefix, model.token_layout.n_tokens)]:
                expected += (pattern * gradient).sum(dim=0)[query, n_prefix:]
        torch.testing.assert_close(weighed[image], expected)


def test_tokens_are_projected_by_the_whole_head_or_by_a_half(model: HookedViT, images: Tensor) -> None:
    _, cache = model.run_with_cache(images.double(), names_filter="resid_post")
    halves = [project(model.class_half(half), cache, labels=LABELS, k=1) for half in ("cls", "mean")]
    whole = project(model, cache, labels=LABELS, k=1)
    both = halves[0].label_logit + halves[1].label_logit
    torch.testing.assert_close(whole.label_logit, both, rtol=1e-9, atol=1e-9)
    last = model.class_half("mean")
    patches = cache["resid_post", -1][:, model.token_layout.patches]
    expected = last.class_logits(patches).mean(dim=1)
    torch.testing.assert_close(last.head_logits(cache["resid_post", -1]), expected, rtol=1e-9, atol=1e-9)


def test_one_patch_stays_when_patches_are_removed(model: HookedViT, images: Tensor) -> None:
    order = removal_order(torch.rand(2, 12), "negative")
    curve = removal_curve(model, images.double(), LABELS, order)
    assert curve.n_removed.tolist() == list(range(12))


def test_a_sweep_runs(model: HookedViT, images: Tensor) -> None:
    dataset = [(image, int(label)) for image, label in zip(images.double(), LABELS, strict=True)]
    table = sweep(model, dataset, [Identifiability()], batch_size=2)["identifiability"]
    assert len(table)
