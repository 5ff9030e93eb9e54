"""Each method is the slow loop from its paper, on models of every kind, and all are called alike."""

import builtins

import pytest
import torch
from conftest import make_timm, ported
from torch import Tensor

from analyses.class_gradients import read_tokens
from analyses.explainers import (
    METHODS,
    ProbeOrder,
    attention_rollout,
    explainer,
    grad_cam,
    gradient_attention,
    input_gradients,
    integrated_gradients,
    needs_pixels,
    random_map,
    raw_attention,
    relevance,
)
from analyses.explainers.captum_maps import captum_map
from analyses.linear_probe import fit_ridge_probe
from analyses.probes.features import probe_features
from hooked_vit import HookedViT

CLASSES = torch.tensor([5, 0])


def patterns(model: HookedViT, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Attention of each block and the class logit's gradient at it, one image at a time."""
    found, gradients = [], []
    for image in range(len(images)):
        kept: list[Tensor] = []

        def keep(pattern: Tensor, hook: object, kept: list[Tensor] = kept) -> Tensor:
            kept.append(pattern.clone().requires_grad_() if not pattern.requires_grad else pattern)
            kept[-1].retain_grad()
            return kept[-1]

        with torch.enable_grad(), model.hooks(fwd_hooks=[("pattern", keep)]):
            model(images[[image]])[0, CLASSES[image]].backward()
        found.append(torch.stack([one.detach()[0] for one in kept]))
        gradients.append(
            torch.stack([one.grad[0] if one.grad is not None else torch.zeros_like(one[0]) for one in kept])
        )
    model.zero_grad(set_to_none=True)
    return found, gradients


def rows(matrix: Tensor, model: HookedViT) -> Tensor:
    """The rows of the tokens that the head reads, averaged, at the patches."""
    queries = list(range(model.token_layout.n_tokens))[read_tokens(model.cfg)]
    return sum(matrix[query] for query in queries)[model.token_layout.patches] / len(queries)


def test_attention(kind: str, images: Tensor) -> None:
    model = ported(kind)
    raw, rollout = raw_attention(model, images, CLASSES), attention_rollout(model, images, CLASSES)
    for image, of_image in enumerate(patterns(model, images)[0]):
        torch.testing.assert_close(raw[image], rows(of_image[-1].mean(0), model))
        product = torch.eye(model.token_layout.n_tokens)
        for pattern in of_image:
            step = pattern.mean(0) + torch.eye(len(product))
            product = (step / step.sum(-1, keepdim=True)) @ product
        torch.testing.assert_close(rollout[image], rows(product, model))


def test_gradients_of_attention(kind: str, images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm(kind))
    relevances, products = relevance(model, images, CLASSES), gradient_attention(model, images, CLASSES)
    for image, (of_image, gradients) in enumerate(zip(*patterns(model, images), strict=True)):
        R = torch.eye(model.token_layout.n_tokens)
        for pattern, gradient in zip(of_image, gradients, strict=True):
            R = R + (gradient * pattern).clamp(min=0).mean(0) @ R
        torch.testing.assert_close(relevances[image], rows(R, model), rtol=1e-4, atol=1e-6)
        n_read = len(list(range(len(R)))[read_tokens(model.cfg)])
        summed = n_read * rows((gradients * of_image).sum((0, 1)), model)
        torch.testing.assert_close(products[image], summed, rtol=1e-4, atol=1e-6)


def test_grad_cam(kind: str, images: Tensor) -> None:
    model = ported(kind)
    cam, patches = grad_cam(model, images, CLASSES), model.token_layout.patches
    stream = model(images, stop_at_layer=2).detach().requires_grad_()
    with torch.enable_grad():
        of_classes = model(stream, start_at_layer=2).gather(1, CLASSES[:, None]).sum()
        (gradient,) = torch.autograd.grad(of_classes, stream)
    for image in range(2):
        weights = gradient[image, patches].mean(0)
        for place, vector in enumerate(stream[image, patches]):
            value = max(0.0, float((weights * vector).sum().detach()))
            assert cam[image, place].item() == pytest.approx(value, rel=1e-4, abs=1e-6)


def by_patch(of_pixels: Tensor) -> Tensor:
    means = [of_pixels[:, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8].mean() for r in range(4) for c in range(3)]
    return torch.stack(means)


def test_gradients_of_pixels(images: Tensor) -> None:
    model, steps = ported("gap_registers_layerscale"), 64
    saliency = input_gradients(model, images, CLASSES)
    integrated = integrated_gradients(model, images, CLASSES, n_steps=steps)
    times_input = captum_map("InputXGradient", model, images, CLASSES)
    for image in range(2):

        def gradient(pixels: Tensor, image: int = image) -> Tensor:
            pixels = pixels.clone().requires_grad_()
            with torch.enable_grad():
                return torch.autograd.grad(model(pixels[None])[0, CLASSES[image]], pixels)[0]

        own = gradient(images[image])
        torch.testing.assert_close(saliency[image], by_patch(own.abs()), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(times_input[image], by_patch(own * images[image]), rtol=1e-4, atol=1e-6)
        along = [gradient(images[image] * (step + 0.5) / steps) for step in range(steps)]
        mean = sum(along[1:], along[0]) / steps
        torch.testing.assert_close(integrated[image], by_patch(mean * images[image]), rtol=1e-3, atol=1e-5)


def test_probe_order(images: Tensor) -> None:
    model = ported("distilled")
    generator = torch.Generator().manual_seed(3)
    pictures, labels = torch.randn(14, 3, 32, 24, generator=generator), torch.arange(14) % 7
    features = probe_features(model, [(pictures, labels)]).features
    probe = fit_ridge_probe(features, labels, 7)
    maps = ProbeOrder(probe)(model, images, CLASSES)
    _, cache = model.run_with_cache(images)
    for image in range(2):
        for patch in range(12):
            total, score = 0, 0.0
            for layer in range(3):
                vector = cache["resid_post", layer][image, 2 + patch]
                said = vector @ probe.weight[layer, 2 + patch] + probe.bias[layer, 2 + patch]
                total += sum(one > said[CLASSES[image]] for one in said.tolist())
                score += said[CLASSES[image]].item()
            expected = -int(total) + torch.tensor(score).sigmoid().item()
            assert maps[image, patch].item() == pytest.approx(expected, abs=1e-4)


def test_random_maps_depend_on_the_image_alone(images: Tensor) -> None:
    model = ported("cls")
    both = random_map(model, images, CLASSES)
    assert torch.equal(both[[1]], random_map(model, images[[1]], CLASSES[:1]))
    assert not torch.equal(both, random_map(model, images, CLASSES, seed=1))
    by_index = random_map(model, images, CLASSES, index=torch.tensor([4, 9]))
    assert torch.equal(by_index[1:], random_map(model, images * 2, CLASSES, index=torch.tensor([9, 4]))[:1])


@pytest.mark.parametrize("name", METHODS)
def test_all_are_called_alike(name: str, kind: str, images: Tensor) -> None:
    model, method = ported(kind), explainer(name)
    maps = method(model, images, CLASSES)
    assert maps.shape == (2, 12)
    assert not maps.requires_grad
    tokens = model(images, stop_at_layer=0)
    if needs_pixels(name):
        with pytest.raises(ValueError, match="pass images, not the stream's start"):
            method(model, tokens, CLASSES, start_at_layer=0)
    elif name != "random":  # drawn from the bytes of what it is given
        torch.testing.assert_close(method(model, tokens, CLASSES, start_at_layer=0), maps, rtol=1e-4, atol=1e-6)


def test_errors(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no method is called 'relevence': did you mean 'relevance'\? there are"):
        explainer("relevence")
    probe = fit_ridge_probe(torch.randn(2, 3, 4, 24), torch.tensor([0, 1, 2, 3]), 7)
    with pytest.raises(ValueError, match=r"3 layers and 14 positions, got \(2, 3\).*probe_features"):
        ProbeOrder(probe)(ported("cls"), images, CLASSES)
    real = builtins.__import__

    def without_captum(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("captum"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_captum)
    with pytest.raises(ImportError, match=r"Saliency needs captum: pip install 'hooked-vit\[explain\]'"):
        input_gradients(ported("cls"), images, CLASSES)
