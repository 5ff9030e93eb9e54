"""Interventions on who attends to whom: between groups of tokens, or by a mask, in all blocks or in some."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooked_vit.interventions.places import TOKEN_GROUPS, token_group
from hooked_vit.interventions.replacing import Hooks
from hooked_vit.model import HookedViT
from hooked_vit.token_layout import TokenLayout

_RELATIONS = ("self", "others")


def block_attention(
    model: HookedViT,
    blocked: Iterable[tuple[str, str]],
    blocks: Sequence[int] | None = None,
    renormalise: bool = True,
) -> Hooks:
    """Tokens of some groups no longer attend to tokens of others.

    Interventions compose: lists of hooks add up, and a key stays blocked once any of them blocks it. Together with a
    `token_mask`, that must keep the prefix tokens.

    Args:
        model: Whose tokens.
        blocked: Pairs of groups, as for `attention_mask`.
        blocks: In which blocks; in all by default.
        renormalise: Whether the attention that is left sums to one (scores set to minus infinity, at
            `hook_attn_scores`), or stays what it was (zeros in the pattern, at `hook_pattern`).

    Raises:
        ValueError: If there is no such group or block, or (when it runs) nothing is left to attend to.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> both_ways = block_attention(model, [("patch", "cls"), ("cls", "patch")])
    >>> len(both_ways + block_attention(model, [("patch", "others")], blocks=[7]))
    9
    """
    pairs, layout = tuple(blocked), model.token_layout
    attention_mask(layout, pairs)  # tells what is wrong with them, here and not in the forward pass

    @lru_cache(maxsize=2)
    def allowed(n_tokens: int, device: torch.device) -> Tensor:
        # patches may be fewer where a token_mask drops some, or more in a larger image
        here = dataclasses.replace(layout, grid=(1, n_tokens - layout.n_prefix))
        return attention_mask(here, pairs).to(device)

    return _hooks(model, lambda attention: allowed(attention.shape[-1], attention.device), blocks, renormalise)


def restrict_attention(
    model: HookedViT,
    allowed: Bool[Tensor, "query key"] | Bool[Tensor, "batch head query key"],
    blocks: Sequence[int] | None = None,
    renormalise: bool = True,
) -> Hooks:
    """Tokens attend where a mask allows it: one of `attention_mask`, or any other.

    Args:
        model: Whose attention.
        allowed: True where a query may attend to a key; axes of batch and head may be of length one.
        blocks: In which blocks; in all by default.
        renormalise: As for `block_attention`.

    Raises:
        ValueError: If there is no such block, the mask is none or leaves a query nothing to attend to, or (when it
            runs) it is for another number of tokens.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> near = (model.token_layout.positions[:, None] - model.token_layout.positions).abs().amax(-1) <= 1
    >>> mask = torch.ones(65, 65, dtype=torch.bool)
    >>> mask[model.token_layout.patches, model.token_layout.patches] = near
    >>> model.run_with_hooks(torch.zeros(1, 3, 64, 64), fwd_hooks=restrict_attention(model, mask)).shape
    torch.Size([1, 100])
    """
    if allowed.dtype != torch.bool or allowed.ndim not in (2, 4):
        raise ValueError(
            "expected a bool mask [query key] or [batch head query key] (batch and head may be of length one), got "
            f"{allowed.dtype} of shape {tuple(allowed.shape)}"
        )
    if renormalise:
        _check_keys_left(allowed)

    def of(attention: Tensor) -> Tensor:
        if allowed.shape[-2:] != attention.shape[-2:]:
            raise ValueError(
                f"the mask is for {allowed.shape[-2]} queries and {allowed.shape[-1]} keys, the attention has "
                f"{attention.shape[-2]} and {attention.shape[-1]}"
            )
        return allowed.to(attention.device)

    return _hooks(model, of, blocks, renormalise)


def attention_mask(layout: TokenLayout, blocked: Iterable[tuple[str, str]]) -> Bool[Tensor, "query key"]:
    """True where a query token may attend to a key token: everywhere but between blocked groups.

    Masks compose with `&`.

    Args:
        layout: Which tokens are what: `model.token_layout`.
        blocked: Pairs `(query, key)` of `"cls"`, `"dist"`, `"register"`, `"patch"`, `"prefix"` (the first three) and
            `"any"`; as key also `"self"` (the query itself) and `"others"` (all tokens but the query).

    Raises:
        ValueError: If there is no such group, or the layout has no such token.

    >>> attention_mask(TokenLayout(n_cls=1, n_dist=0, n_registers=0, grid=(1, 2)), [("patch", "cls")]).int()
    tensor([[1, 1, 1],
            [0, 1, 1],
            [0, 1, 1]], dtype=torch.int32)
    """
    allowed = torch.ones(layout.n_tokens, layout.n_tokens, dtype=torch.bool)
    itself = torch.eye(layout.n_tokens, dtype=torch.bool)
    for query, key in blocked:
        keys = {"self": itself, "others": ~itself}[key] if key in _RELATIONS else _group(layout, key, True)[None, :]
        allowed &= ~(_group(layout, query, False)[:, None] & keys)
    return allowed


def _group(layout: TokenLayout, name: str, as_key: bool) -> Bool[Tensor, "token"]:
    if name not in TOKEN_GROUPS:
        known = TOKEN_GROUPS + (_RELATIONS if as_key else ())
        raise ValueError(f"expected a group of tokens out of {', '.join(map(repr, known))}, got {name!r}")
    if name == "prefix" and not layout.n_prefix:
        return torch.zeros(layout.n_tokens, dtype=torch.bool)  # no token to block
    return token_group(layout, name)


def _hooks(
    model: HookedViT, allowed: Callable[[Tensor], Tensor], blocks: Sequence[int] | None, renormalise: bool
) -> Hooks:
    def mask_scores(scores: Float[Tensor, "batch head query key"], hook: Any) -> Tensor:
        masked = scores.masked_fill(~allowed(scores), -torch.inf)
        nothing_left = masked.isneginf().all(dim=-1)
        # what fills up images that keep fewer tokens may attend to anything: nobody attends to it
        fills_up = scores.isneginf().all(dim=-2) if scores.shape[-1] == scores.shape[-2] else False
        _check_keys_left(~(nothing_left & ~fills_up)[..., None])
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
        raise ValueError(f"query token {query} is left without a key to attend to: allow it one, or do not renormalise")
