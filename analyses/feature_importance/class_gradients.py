"""Gradients of a class's cross-entropy with respect to what the head reads, in closed form but for the last norm."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import vjp, vmap

from hooked_vit import HookedViT
from hooked_vit.components.pool import pool_tokens

__all__ = ["Target", "class_gradients", "pull_back"]

Target = Literal["cross_entropy", "logit", "margin"]
"""What is differentiated: the class's cross-entropy (the paper's), minus its logit, or minus its lead over the best
other class. The last two do not vanish where the class's probability rounds to 1."""


def class_gradients(
    model: HookedViT,
    vectors: Float[Tensor, "row read d_model"],
    classes: Int[Tensor, "row chosen"],
    double_softmax: bool = False,
    target: Target = "cross_entropy",
) -> Float[Tensor, "row chosen read d_model"]:
    """`d CE(head(x), k) / dx`, or of another target, for each chosen class k; x stands in for what the head reads.

    With `f` the norm and pooling before the unembedding E, `p = softmax(E f(x) + b)`, and `e_k` the unit vector of k:

        dCE/df = Eᵀ (p - e_k)                                       (so all classes share the product with p)
        dCE/df = Eᵀ J (softmax(p) - e_k),  J = diag(p) - p pᵀ        (double_softmax)
        d(-logit_k)/df = -Eᵀ e_k                                    (target "logit")
        d(logit_j - logit_k)/df = Eᵀ (e_j - e_k)                    (target "margin"; j: the other class with the
                                                                     largest logit)

    and the gradient passes back through f with the vectors' own statistics, which `class_logits` uses. Distilled models
    have two heads that read one token each and whose logits are averaged; a head on CLS and the mean of the patches has
    two halves, whose logits are added.

    Args:
        model: The model.
        vectors: The vectors that the head reads, as many per row as it reads tokens (see `cfg.read_tokens`).
        classes: The chosen classes of each row.
        double_softmax: Softmax twice before the loss, as in the released code.
        target: What is differentiated.

    Raises:
        ValueError: If the target is unknown, or `double_softmax` goes with another than the cross-entropy.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> class_gradients(model, torch.randn(2, 1, 128), torch.tensor([[3, 14, 15], [9, 2, 6]])).shape
    torch.Size([2, 3, 1, 128])
    """
    if target not in get_args(Target):
        raise ValueError(f"expected a target out of {', '.join(map(repr, get_args(Target)))}, got {target!r}")
    if double_softmax and target != "cross_entropy":
        raise ValueError(f"double_softmax is a variant of the cross-entropy: drop it, or target={target!r}")
    if target != "logit":
        model.require_several_classes("feature importance, a gradient of cross-entropy,")
    E = _class_embeddings(model)
    features, pull, *_ = vjp(lambda x: _features(model, x), vectors)
    # `features` has one row per head of the model: one, or two in distilled models and for heads of two halves
    class_logits = torch.einsum("rfd,fcd->rc", features, E) + model.b_U
    p = class_logits.softmax(dim=-1)
    chosen_embeddings = E[:, classes]  # [head row chosen d_model]
    if target == "logit":
        gradients = -chosen_embeddings
    elif target == "margin":
        others = class_logits[:, None].expand(-1, classes.shape[1], -1).scatter(2, classes[..., None], -torch.inf)
        gradients = E[:, others.argmax(dim=-1)] - chosen_embeddings
    elif double_softmax:
        q = p.softmax(dim=-1)
        mean, mixed = (torch.einsum("rc,fcd->frd", weights, E)[:, :, None] for weights in (p, p * q))
        chosen_p = p.gather(1, classes)[None, ..., None]
        expected_q = (p * q).sum(dim=-1)[None, :, None, None]
        gradients = mixed - expected_q * mean - chosen_p * (chosen_embeddings - mean)
    else:
        gradients = torch.einsum("rc,fcd->frd", p, E)[:, :, None] - chosen_embeddings
    return pull_back(pull, gradients.permute(1, 2, 0, 3))


def pull_back(
    pull: Callable[[Tensor], tuple[Tensor]], gradients: Float[Tensor, "row chosen *axes"]
) -> Float[Tensor, "row chosen *axes_before"]:
    """Pass the gradients of several classes back through the function from `torch.func.vjp`, which takes one class."""
    if gradients.shape[1] == 1:
        return pull(gradients[:, 0])[0][:, None]
    return vmap(pull, in_dims=1, out_dims=1)(gradients)[0]


def _class_embeddings(model: HookedViT) -> Float[Tensor, "head n_classes d_model"]:
    head, head_dist = model.head, model.head_dist
    assert head is not None
    if model.cfg.n_read > 1:
        return head.weight.unflatten(1, (model.cfg.n_read, -1)).transpose(0, 1)
    return head.weight[None] if head_dist is None else torch.stack([head.weight, head_dist.weight]) / 2


def _features(model: HookedViT, vectors: Float[Tensor, "row read d_model"]) -> Float[Tensor, "row head d_model"]:
    """The vectors that the class embeddings multiply: normed and pooled."""
    cfg, norm = model.cfg, model.ln_final
    if norm is not None and not cfg.norm_after_pool:
        vectors = norm.fused(vectors)
    if cfg.pool in ("cls", "cls_and_dist"):
        return vectors
    if cfg.pool == "cls_and_mean":
        return torch.stack([vectors[:, 0], vectors[:, cfg.token_layout.n_prefix :].mean(dim=1)], dim=1)
    pooled = pool_tokens(vectors, cfg.pool) if model.attn_pool is None else model.attn_pool.pool(vectors)
    if norm is not None and cfg.norm_after_pool:
        pooled = norm.fused(pooled)
    if model.ln_pooled is not None:
        pooled = model.ln_pooled.fused(pooled)
    return pooled[:, None]
