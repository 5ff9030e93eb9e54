"""Relevance and gradient × attention are the loops from their papers, in models of every kind."""

import torch
from attention_by_hand import patterns_and_gradients, read_rows
from conftest import make_timm
from torch import Tensor

from analyses.feature_importance.class_gradients import read_tokens
from analyses.feature_importance.gradient_maps import gradient_attention, relevance
from hooked_vit import HookedViT

CLASSES = torch.tensor([5, 0])


def test_gradients_of_attention(kind: str, images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm(kind))
    relevances, products = relevance(model, images, CLASSES), gradient_attention(model, images, CLASSES)
    for image, (of_image, gradients) in enumerate(zip(*patterns_and_gradients(model, images, CLASSES), strict=True)):
        R = torch.eye(model.token_layout.n_tokens)
        for pattern, gradient in zip(of_image, gradients, strict=True):
            R = R + (gradient * pattern).clamp(min=0).mean(0) @ R
        torch.testing.assert_close(relevances[image], read_rows(R, model), rtol=1e-4, atol=1e-6)
        n_read = len(list(range(len(R)))[read_tokens(model.cfg)])
        summed = n_read * read_rows((gradients * of_image).sum((0, 1)), model)
        torch.testing.assert_close(products[image], summed, rtol=1e-4, atol=1e-6)
