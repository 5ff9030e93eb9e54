"""Interventions that block attention between tokens, or by a mask."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooked_vit.interventions.replacing import Intervention
from hooked_vit.interventions.selection import TOKEN_GROUPS, Tokens, select_tokens
from hooked_vit.model import HookedViT
from hooked_vit.token_layout import TokenLayout

_RELATIONS = ("self", "others")


def block_attention(
    model: HookedViT,
    blocked: Iterable[tuple[Tokens, Tokens]],
    blocks: Sequence[int] | None = None,
    renormalise: bool = True,
) -> Intervention:
    """Block attention from some tokens to others.

    Interventions add up: a key is blocked if any of them blocks it. A `token_mask` used together with them must keep
    the prefix tokens.

    Args:
        model: The model.
        blocked: Pairs of query tokens and key tokens, as for `attention_mask`. Masks per image [batch token] fit
            runs of that many images.
        blocks: The blocks; all by default.
        renormalise: Whether the remaining attention sums to one (scores set to minus infinity, at
            `hook_attn_scores`) or is left unchanged (zeros in the pattern, at `hook_pattern`).

    Raises:
        ValueError: If there are no such tokens or blocks, or (during the run) a query has no key left or a mask is
            for another number of images.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> both_ways = block_attention(model, [("patch", "cls"), ("cls", "patch")])
    >>> len(both_ways + block_attention(model, [("patch", "others")], blocks=[7]))
    9
    >>> on_object = torch.zeros(65, dtype=torch.bool)
    >>> on_object[20:23] = True
    >>> len(block_attention(model, [("cls", on_object), (on_object, on_object.logical_not())], blocks=[6, 7]))
    2
    """
    pairs, layout = _pairs(blocked), model.token_layout
    if model.cfg.dynamic_image_size:
        for query, key in pairs:
            for tokens, as_key in ((query, False), (key, True)):
                if isinstance(tokens, str) and not (as_key and tokens in _RELATIONS):
                    _members(layout, tokens, as_key)
    else:
        attention_mask(layout, pairs)  # raises here rather than in the forward pass

    @lru_cache(maxsize=2)
    def allowed(n_tokens: int, device: torch.device) -> Tensor:
        # there may be fewer patches after a token_mask, or more in a larger image
        run_layout = dataclasses.replace(layout, grid=(1, n_tokens - layout.n_prefix))
        return attention_mask(run_layout, pairs).to(device)

    def allowed_in(attention: Tensor) -> Tensor:
        return _fitting(allowed(attention.shape[-1], attention.device), attention)

    return _hooks(model, allowed_in, blocks, renormalise)


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
            (during the run) it has another number of tokens, images or heads.

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

    return _hooks(model, lambda attention: _fitting(allowed, attention), blocks, renormalise)


def attention_mask(
    layout: TokenLayout, blocked: Iterable[tuple[Tokens, Tokens]]
) -> Bool[Tensor, "query key"] | Bool[Tensor, "batch 1 query key"]:
    """True where a query token may attend to a key token: everywhere except between blocked tokens.

    Masks combine with `&`.

    Args:
        layout: The order of the tokens: `model.token_layout`.
        blocked: Pairs `(query, key)`, both as for `Selection.tokens`: a group (`"cls"`, `"dist"`, `"register"`,
            `"patch"`, `"prefix"`, the first three together, or `"any"`), indices, a slice, or a bool mask [token] or
            [batch token]; as key also `"self"` (the query itself) and `"others"` (all tokens except the query).

    Returns:
        One mask for all images, or one per image if a group is a mask per image.

    Raises:
        ValueError: If there are no such tokens, or masks are for different numbers of images.

    >>> attention_mask(TokenLayout(n_cls=1, n_dist=0, n_registers=0, grid=(1, 2)), [("patch", "cls")]).int()
    tensor([[1, 1, 1],
            [0, 1, 1],
            [0, 1, 1]], dtype=torch.int32)
    """
    allowed = torch.ones(layout.n_tokens, layout.n_tokens, dtype=torch.bool)
    diagonal = torch.eye(layout.n_tokens, dtype=torch.bool)
    for query, key in _pairs(blocked):
        queries = _members(layout, query, as_key=False)
        if isinstance(key, str) and key in _RELATIONS:
            keys = {"self": diagonal, "others": ~diagonal}[key]
        else:
            keys = _members(layout, key, as_key=True)[..., None, :]
        sizes = {len(mask) for mask in (allowed, queries[..., None], keys) if mask.ndim == 3} - {1}
        if len(sizes) > 1:
            raise ValueError(
                f"expected masks for the same images, got masks for {' and '.join(map(str, sizes))} images"
            )
        allowed = allowed & ~(queries[..., None] & keys)
    return allowed if allowed.ndim == 2 else allowed[:, None]


def _pairs(blocked: Iterable[Any]) -> tuple[tuple[Any, Any], ...]:
    pairs = tuple(blocked)
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            got = repr(pair) if isinstance(pair, str) else type(pair).__name__
            raise ValueError(f"expected a list of pairs (query tokens, key tokens), got {got} in it")
    return tuple((query, key) for query, key in pairs)


def _members(layout: TokenLayout, tokens: Any, as_key: bool) -> Bool[Tensor, "token"] | Bool[Tensor, "batch token"]:
    if isinstance(tokens, str) and tokens not in TOKEN_GROUPS:
        known = TOKEN_GROUPS + (_RELATIONS if as_key else ())
        raise ValueError(f"expected a group of tokens, one of {', '.join(map(repr, known))}, got {tokens!r}")
    if isinstance(tokens, str) and tokens == "prefix" and not layout.n_prefix:
        return torch.zeros(layout.n_tokens, dtype=torch.bool)  # no token to block
    return select_tokens(tokens, layout, layout.n_tokens, "key tokens" if as_key else "query tokens").cpu()


def _fitting(
    allowed: Bool[Tensor, "*axes query key"], attention: Float[Tensor, "batch head query key"]
) -> Bool[Tensor, "*axes query key"]:
    """A mask on the device of the attention, which it fits.

    Raises:
        ValueError: If it does not.
    """
    if allowed.shape[-2:] != attention.shape[-2:]:
        raise ValueError(
            f"the mask is for {allowed.shape[-2]} queries and {allowed.shape[-1]} keys, the attention has "
            f"{attention.shape[-2]} and {attention.shape[-1]}"
        )
    for axis, size, found in zip(("images", "heads"), allowed.shape[:-2], attention.shape[:2], strict=False):
        if size not in (1, found):
            raise ValueError(f"the mask is for {size} {axis}, the run has {found}")
    return allowed.to(attention.device)


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

    points, function = (("attn_scores",), mask_scores) if renormalise else (("pattern",), mask_pattern)
    if renormalise and model.cfg.differential is not None:
        points = ("attn_scores_1", "attn_scores_2")
    chosen = range(model.cfg.n_layers) if blocks is None else blocks
    return [(name, function) for block in chosen for point in points for name in model.hook_names((point, block))]


def _check_keys_left(allowed: Bool[Tensor, "*axes query key"]) -> None:
    left = allowed.any(dim=-1)
    if not left.all():
        query = int((~left).nonzero()[0, -1])
        raise ValueError(
            f"query token {query} is left without a key to attend to: allow one, or pass renormalise=False"
        )
