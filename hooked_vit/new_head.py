"""Another linear head for a model: which tokens it reads, and its weights, checked."""

import dataclasses
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooked_vit.config import HookedViTConfig, Pool

__all__ = ["HeadPool", "new_head"]

HeadPool = Literal["cls", "avg", "cls_and_mean"]
"""What a new head can read: CLS, the mean of the patches, or the two side by side."""


def new_head(
    cfg: HookedViTConfig,
    W: Float[Tensor, "d_read n_classes"],
    b: Float[Tensor, "n_classes"] | None,
    pool: HeadPool | None,
) -> tuple[HookedViTConfig, dict[str, Tensor]]:
    """The config of a model with another head, and the head's parameters.

    Args:
        cfg: The model's config.
        W: One class embedding per column, of width `d_model`; or twice that, for CLS and then the mean of the patches.
        b: One bias per class, or none.
        pool: What the head reads; by default what the model's head reads, or CLS and the mean if W has both.

    Raises:
        ValueError: If the shapes do not fit, or the model cannot be read so.

    >>> cfg = HookedViTConfig(2, 12, 3, 20, 7, (16, 24), (8, 8))
    >>> both, head = new_head(cfg, torch.zeros(24, 5), None, None)
    >>> both.pool, both.n_classes, head["head.weight"].shape
    ('cls_and_mean', 5, torch.Size([5, 24]))
    """
    read = _checked_pool(cfg, W, pool)
    if b is not None and b.shape != W.shape[1:]:
        raise ValueError(f"b must have one number for each of the {W.shape[1]} classes, got {tuple(b.shape)}")
    distilled = read == "cls_and_dist"
    changed = dataclasses.replace(
        cfg,
        n_classes=W.shape[1],
        head_bias=b is not None or distilled,
        pool=read,
        pool_includes_prefix=cfg.pool_includes_prefix and read == cfg.pool,
    )
    head: dict[str, Tensor] = {}
    for name in ("head", "head_dist") if distilled else ("head",):
        head[f"{name}.weight"] = _parameter(W.T, cfg)
        if changed.head_bias:
            head[f"{name}.bias"] = _parameter(W.new_zeros(W.shape[1]) if b is None else b, cfg)
    return changed, head


def _checked_pool(cfg: HookedViTConfig, W: Tensor, pool: HeadPool | None) -> Pool:
    if pool is not None and pool not in get_args(HeadPool):
        raise ValueError(f"pool must be {', '.join(map(repr, get_args(HeadPool)))} or None, got {pool!r}")
    d_model, both = cfg.d_model, 2 * cfg.d_model
    expected = {"cls_and_mean": (both,), None: (d_model, both)}.get(pool, (d_model,))
    if W.ndim != 2 or W.shape[0] not in expected or W.shape[1] == 0:
        width = f"d_model = {d_model}"
        if pool == "cls_and_mean":
            width = f"2 d_model = {both}, CLS and the mean of the patches"
        transposed = W.ndim == 2 and W.shape[1] in expected
        hint = "; pass W.T" if transposed else ""
        raise ValueError(f"W must be [d_model n_classes] with {width}, got {tuple(W.shape)}{hint}")
    if pool is None and W.shape[0] == both:
        pool = "cls_and_mean"
    elif pool is None and cfg.pool == "cls_and_mean":
        raise ValueError(
            f"the head of this model reads CLS and the mean of the patches: W must be [{both} n_classes], the two "
            "halves stacked, got class embeddings of width d_model: say which token reads them with pool='cls' or "
            "pool='avg'"
        )
    if pool in ("cls", "cls_and_mean") and not cfg.has_cls:
        raise ValueError(f"pool={pool!r} needs a CLS token, and this model has none: use pool='avg'")
    if pool == "cls_and_mean" and cfg.norm_after_pool:
        raise ValueError(
            "a head on CLS and the mean of the patches reads normed tokens, and this model norms after pooling: pass "
            f"class embeddings of width d_model = {d_model}"
        )
    return cfg.pool if pool is None else pool


def _parameter(tensor: Tensor, cfg: HookedViTConfig) -> nn.Parameter:
    copied = tensor.detach().clone(memory_format=torch.contiguous_format)
    return nn.Parameter(copied.to(device=cfg.device, dtype=cfg.dtype))
