"""Attention of every block, its gradient, and the rows that the head reads, one image at a time."""

import torch
from torch import Tensor

from analyses.feature_importance.class_gradients import read_tokens
from hooked_vit import HookedViT


def patterns_and_gradients(model: HookedViT, images: Tensor, classes: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Attention of each block and the class logit's gradient at it, one image at a time."""
    found, gradients = [], []
    for image in range(len(images)):
        kept: list[Tensor] = []

        def keep(pattern: Tensor, hook: object, kept: list[Tensor] = kept) -> Tensor:
            kept.append(pattern.clone().requires_grad_() if not pattern.requires_grad else pattern)
            kept[-1].retain_grad()
            return kept[-1]

        with torch.enable_grad(), model.hooks(fwd_hooks=[("pattern", keep)]):
            model(images[[image]])[0, classes[image]].backward()
        found.append(torch.stack([one.detach()[0] for one in kept]))
        gradients.append(
            torch.stack([one.grad[0] if one.grad is not None else torch.zeros_like(one[0]) for one in kept])
        )
    model.zero_grad(set_to_none=True)
    return found, gradients


def read_rows(matrix: Tensor, model: HookedViT) -> Tensor:
    """The rows of the tokens that the head reads, averaged, at the patches."""
    queries = list(range(model.token_layout.n_tokens))[read_tokens(model.cfg)]
    return sum(matrix[query] for query in queries)[model.token_layout.patches] / len(queries)
