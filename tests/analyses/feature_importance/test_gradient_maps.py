"""Relevance, gradient × attention and Grad-CAM equal the loops from their definitions, in models of every kind."""

import pytest
import torch
from attention_by_hand import patterns_and_gradients, read_rows
from conftest import ported
from torch import Tensor

from analyses.feature_importance.gradient_maps import grad_cam, gradient_attention, relevance

CLASSES = torch.tensor([5, 0])


def test_relevance_and_gradient_attention(kind: str, images: Tensor) -> None:
    model = ported(kind)
    relevances, products = relevance(model, images, CLASSES), gradient_attention(model, images, CLASSES)
    for image, (patterns, gradients) in enumerate(zip(*patterns_and_gradients(model, images, CLASSES), strict=True)):
        R = torch.eye(model.token_layout.n_tokens)
        for pattern, gradient in zip(patterns, gradients, strict=True):
            R = R + (gradient * pattern).clamp(min=0).mean(0) @ R
        torch.testing.assert_close(relevances[image], read_rows(R, model), rtol=1e-4, atol=1e-6)
        n_read = len(list(range(len(R)))[model.cfg.read_tokens])
        summed = n_read * read_rows((gradients * patterns).sum((0, 1)), model)
        torch.testing.assert_close(products[image], summed, rtol=1e-4, atol=1e-6)


def test_grad_cam(kind: str, images: Tensor) -> None:
    model = ported(kind)
    cam, patches = grad_cam(model, images, CLASSES), model.token_layout.patches
    stream = model(images, stop_at_layer=2).detach().requires_grad_()
    with torch.enable_grad():
        class_logits = model(stream, start_at_layer=2).gather(1, CLASSES[:, None]).sum()
        (gradient,) = torch.autograd.grad(class_logits, stream)
    for image in range(2):
        weights = gradient[image, patches].mean(0)
        for place, vector in enumerate(stream[image, patches]):
            value = max(0.0, float((weights * vector).sum().detach()))
            assert cam[image, place].item() == pytest.approx(value, rel=1e-4, abs=1e-6)
