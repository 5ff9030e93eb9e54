"""Interventions that block attention between groups of tokens, or by a mask."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooked_vit.interventions.replacing import Intervention
from hooked_vit.interventions.selection import TOKEN_GROUPS, token_group
from hooked_vit.model import HookedViT
from hooked_vit.token_layout import TokenLayout

_RELATIONS = ("self", "others")


def block_attention(
    model: HookedViT,
    blocked: Iterable[tuple[str, str]],
    blocks: Sequence[int] | None = None,
    renormalise: bool = True,
) -> Intervention:
    """Block attention from some groups of tokens to others.

    Interventions add up: a key is blocked if any of them blocks it. A `token_mask` used together with them must keep
    the prefix tokens.

    Args:
        model: The model.
        blocked: Pairs of groups, as for `attention_mask`.
        blocks: The blocks; all by default.
        renormalise: Whether the remaining attention sums to one (scores set to minus infinity, at
            `hook_attn_scores`) or is left unchanged (zeros in the pattern, at `hook_pattern`).

    Raises:
        ValueError: If there is no such group or block, or (during the run) a query has no key left.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> both_ways = block_attention(model, [("patch", "cls"), ("cls", "patch")])
    >>> len(both_ways + block_attention(model, [("patch", "others")], blocks=[7]))
    9
    """
    pairs, layout = tuple(blocked), model.token_layout
    attention_mask(layout, pairs)  # raises here rather than in the forward pass

    @lru_cache(maxsize=2)
    def allowed(n_tokens: int, device: torch.device) -> Tensor:
        # there may be fewer patches after a token_mask, or more in a larger image
        run_layout = dataclasses.replace(layout, grid=(1, n_tokens - layout.n_prefix))
        return attention_mask(run_layout, pairs).to(device)

    return _hooks(model, lambda attention: allowed(attention.shape[-1], attention.device), blocks, renormalise)


def restrict_attention(
    model: HookedViT,
    allowed: Bool[Tensor, "query key"] | Bool[Tensor, "batch head query key"],
    blocks: Sequence[int] | None = None,
    renormalise: bool = True,
) -> Intervention:
    """Restrict attention to where a mask allows it: a result of `attention_mask`, or any other mask.

    Args:
        model: The model.
        allowed: True where a query may attend to a key; the axes of batch and head may have length one.
        blocks: The blocks; all by default.
        renormalise: As for `block_attention`.

    Raises:
        ValueError: If there is no such block, the mask is not a bool mask or leaves a query without a key, or
            (during the run) it has another number of tokens.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> near = (model.token_layout.positions[:, None] - model.token_layout.positions).abs().amax(-1) <= 1
    >>> mask = torch.ones(65, 65, dtype=torch.bool)
    >>> mask[model.token_layout.patches, model.token_layout.patches] = near
    >>> model.run_with_hooks(torch.zeros(1, 3, 64, 64), fwd_hooks=restrict_attention(model, mask)).shape
    torch.Size([1, 100])
    """
    if allowed.dtype != torch.bool or allowed.ndim not in (2, 4):
        raise ValueError(
            "expected a bool mask [query key] or [batch head query key] (batch and head may have length one), got "
            f"{allowed.dtype} of shape {tuple(allowed.shape)}"
        )
    if renormalise:
        _check_keys_left(allowed)

    def allowed_in(attention: Tensor) -> Tensor:
        if allowed.shape[-2:] != attention.shape[-2:]:
            raise ValueError(
                f"the mask is for {allowed.shape[-2]} queries and {allowed.shape[-1]} keys, the attention has "
                f"{attention.shape[-2]} and {attention.shape[-1]}"
            )
        return allowed.to(attention.device)

    return _hooks(model, allowed_in, blocks, renormalise)


def attention_mask(layout: TokenLayout, blocked: Iterable[tuple[str, str]]) -> Bool[Tensor, "query key"]:
    """True where a query token may attend to a key token: everywhere except between blocked groups.

    Masks combine with `&`.

    Args:
        layout: The order of the tokens: `model.token_layout`.
        blocked: Pairs `(query, key)` of `"cls"`, `"dist"`, `"register"`, `"patch"`, `"prefix"` (the first three) and
            `"any"`; as key also `"self"` (the query itself) and `"others"` (all tokens except the query).

    Raises:
        ValueError: If there is no such group, or the layout has no such token.

    >>> attention_mask(TokenLayout(n_cls=1, n_dist=0, n_registers=0, grid=(1, 2)), [("patch", "cls")]).int()
    tensor([[1, 1, 1],
            [0, 1, 1],
            [0, 1, 1]], dtype=torch.int32)
    """
    allowed = torch.ones(layout.n_tokens, layout.n_tokens, dtype=torch.bool)
    diagonal = torch.eye(layout.n_tokens, dtype=torch.bool)
    for query, key in blocked:
        keys = {"self": diagonal, "others": ~diagonal}[key] if key in _RELATIONS else _group(layout, key, True)[None, :]
        allowed &= ~(_group(layout, query, False)[:, None] & keys)
    return allowed


def _group(layout: TokenLayout, name: str, as_key: bool) -> Bool[Tensor, "token"]:
    if name not in TOKEN_GROUPS:
        known = TOKEN_GROUPS + (_RELATIONS if as_key else ())
        raise ValueError(f"expected a group of tokens, one of {', '.join(map(repr, known))}, got {name!r}")
    if name == "prefix" and not layout.n_prefix:
        return torch.zeros(layout.n_tokens, dtype=torch.bool)  # no token to block
    return token_group(layout, name)


def _hooks(
    model: HookedViT, allowed: Callable[[Tensor], Tensor], blocks: Sequence[int] | None, renormalise: bool
) -> Intervention:
    def mask_scores(scores: Float[Tensor, "batch head query key"], hook: Any) -> Tensor:
        masked = scores.masked_fill(~allowed(scores), -torch.inf)
        nothing_left = masked.isneginf().all(dim=-1)
        # padding tokens, in images that keep fewer tokens, may attend to anything: no token attends to them
        is_padding = scores.isneginf().all(dim=-2) if scores.shape[-1] == scores.shape[-2] else False
        _check_keys_left(~(nothing_left & ~is_padding)[..., None])
        return torch.where(nothing_left[..., None], scores, masked)

    def mask_pattern(pattern: Float[Tensor, "batch head query key"], hook: Any) -> Tensor:
        return pattern * allowed(pattern)

    point, function = ("attn_scores", mask_scores) if renormalise else ("pattern", mask_pattern)
    chosen = range(model.cfg.n_layers) if blocks is None else blocks
    return [(name, function) for block in chosen for name in model.hook_names((point, block))]


def _check_keys_left(allowed: Bool[Tensor, "*axes query key"]) -> None:
    left = allowed.any(dim=-1)
    if not left.all():
        query = int((~left).nonzero()[0, -1])
        raise ValueError(
            f"query token {query} is left without a key to attend to: allow one, or pass renormalise=False"
        )
