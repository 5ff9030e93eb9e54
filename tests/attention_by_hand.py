"""Attention of every block, its gradient, and the rows that the head reads, computed one image at a time."""

import torch
from torch import Tensor

from hooked_vit import HookedViT


def patterns_and_gradients(model: HookedViT, images: Tensor, classes: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The attention of each block and the class logit's gradient with respect to it, one image at a time."""
    found, gradients = [], []
    for image in range(len(images)):
        kept: list[Tensor] = []

        def keep(pattern: Tensor, hook: object, kept: list[Tensor] = kept) -> Tensor:
            kept.append(pattern.clone().requires_grad_() if not pattern.requires_grad else pattern)
            kept[-1].retain_grad()
            return kept[-1]

        with torch.enable_grad(), model.hooks(fwd_hooks=[("pattern", keep)]):
            model(images[[image]])[0, classes[image]].backward()
        found.append(torch.stack([pattern.detach()[0] for pattern in kept]))
        gradients.append(torch.stack([p.grad[0] if p.grad is not None else torch.zeros_like(p[0]) for p in kept]))
    model.zero_grad(set_to_none=True)
    return found, gradients


def read_rows(matrix: Tensor, model: HookedViT) -> Tensor:
    """The rows of the tokens that the head reads, averaged, at the patches."""
    queries = list(range(model.token_layout.n_tokens))[model.cfg.read_tokens]
    return sum(matrix[query] for query in queries)[model.token_layout.patches] / len(queries)
