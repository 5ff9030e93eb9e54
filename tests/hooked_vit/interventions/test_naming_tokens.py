"""Tokens are named in the same ways in all interventions, compared with masks written out per image."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attention_patterns import logits_and_patterns
from conftest import ported
from token_choices import MASK, MASK_PER_IMAGE, TOKEN_CHOICES, chosen_tokens
from torch import Tensor

from hooked_vit.interventions import (
    Intervention,
    add_direction,
    attention_mask,
    block_attention,
    edit,
    mean_ablate,
    replace_from,
    restrict_attention,
    zero_ablate,
)

MODEL = ported("cls")
choices = pytest.mark.parametrize("chosen", TOKEN_CHOICES.values(), ids=TOKEN_CHOICES.keys())


@choices
def test_edits_of_a_stream(images: Tensor, chosen: Any) -> None:
    with torch.no_grad():
        _, cache = MODEL.run_with_cache(images, names_filter=("mlp_out", 1))
        _, other = MODEL.run_with_cache(images.flip(0), names_filter=("mlp_out", 1))
    before, source = cache["mlp_out", 1], other["mlp_out", 1]
    direction = torch.randn(24)
    edits: list[tuple[Intervention, Tensor]] = [
        (edit(MODEL, ("mlp_out", 1), lambda x, name: 2 * x, tokens=chosen), 2 * before),
        (zero_ablate(MODEL, ("mlp_out", 1), tokens=chosen), torch.zeros_like(before)),
        (mean_ablate(MODEL, ("mlp_out", 1), tokens=chosen), before.mean(0).expand_as(before)),
        (replace_from(MODEL, ("mlp_out", 1), other, tokens=chosen), source),
        (add_direction(MODEL, ("mlp_out", 1), direction, tokens=chosen), before + direction),
    ]
    mask = chosen_tokens(chosen)[..., None]
    for hooks, new in edits:
        with torch.no_grad(), MODEL.hooks(fwd_hooks=hooks):
            _, edited = MODEL.run_with_cache(images, names_filter=("mlp_out", 1))
        torch.testing.assert_close(edited["mlp_out", 1], torch.where(mask, new, before))


@choices
def test_queries_and_keys(images: Tensor, chosen: Any) -> None:
    mask = chosen_tokens(chosen)
    _, before = logits_and_patterns(MODEL, images, ())
    _, found = logits_and_patterns(MODEL, images, zero_ablate(MODEL, ("pattern", 0), queries=chosen, keys=[2]))
    hidden = mask[:, None, :, None] & (torch.arange(13) == 2)
    torch.testing.assert_close(found[0], before[0].masked_fill(hidden, 0))
    _, found = logits_and_patterns(MODEL, images, zero_ablate(MODEL, ("pattern", 0), keys=chosen))
    torch.testing.assert_close(found[0], before[0].masked_fill(mask[:, None, None, :], 0))


@pytest.mark.parametrize("renormalise", [True, False])
@choices
def test_blocked_attention(images: Tensor, chosen: Any, renormalise: bool) -> None:
    mask = chosen_tokens(chosen)
    cls = (torch.arange(13) == 0).expand(2, 13)
    eye = torch.eye(13, dtype=torch.bool)
    pairs: list[tuple[Any, Any, Tensor]] = [
        (chosen, "others", mask[:, :, None] & ~eye),
        ("cls", chosen, cls[:, :, None] & mask[:, None, :]),
        (chosen, [3, 4], mask[:, :, None] & torch.tensor([token in (3, 4) for token in range(13)])),
        (MASK, chosen, MASK[:, None] & mask[:, None, :]),
        (MASK_PER_IMAGE, chosen, MASK_PER_IMAGE[:, :, None] & mask[:, None, :]),
    ]
    _, before = logits_and_patterns(MODEL, images, ())
    for query, key, blocked in pairs:
        if blocked.all(dim=-1).any():
            continue  # no key is left
        _, found = logits_and_patterns(MODEL, images, block_attention(MODEL, [(query, key)], [0], renormalise))
        expected = before[0].masked_fill(blocked[:, None], 0)
        expected = expected / expected.sum(-1, keepdim=True) if renormalise else expected
        torch.testing.assert_close(found[0], expected)
        allowed = attention_mask(MODEL.token_layout, [(query, key)])
        assert torch.equal(allowed.expand(2, 1, 13, 13)[:, 0], ~blocked)


def test_masks_and_groups_in_one_intervention(images: Tensor) -> None:
    context = MASK_PER_IMAGE.logical_not()
    hooks = block_attention(MODEL, [(MASK_PER_IMAGE, context), ("cls", MASK)])
    blocked = MASK_PER_IMAGE[:, :, None] & context[:, None, :]
    blocked[:, 0] |= MASK
    _, pattern = logits_and_patterns(MODEL, images, hooks)
    for layer in range(3):
        assert torch.equal(pattern[layer] == 0, blocked[:, None].expand_as(pattern[layer]))
    allowed = attention_mask(MODEL.token_layout, [(MASK_PER_IMAGE, context), ("cls", MASK)])
    _, restricted = logits_and_patterns(MODEL, images, restrict_attention(MODEL, allowed))
    torch.testing.assert_close(restricted, pattern)


def test_a_larger_image_has_larger_masks() -> None:
    model = ported("dynamic")
    larger, mask = torch.randn(1, 3, 40, 24), torch.arange(3 + 15) == 9
    _, pattern = logits_and_patterns(model, larger, block_attention(model, [("cls", mask)]))
    assert not pattern[:, :, :, 0, 9].any()
    with pytest.raises(ValueError, match=r"key tokens as a mask of shape \[18\], got \(13,\)"):
        model.run_with_hooks(larger, fwd_hooks=block_attention(model, [("cls", MASK)]))
    with pytest.raises(ValueError, match=r"one of 'cls', .* got 'patches'"):
        block_attention(model, [(MASK, "patches")])


WRONG: dict[str, tuple[Any, str]] = {
    "a mask for too few tokens": (MASK[:5], r"tokens as a mask of shape \[13\], got \(5,\)"),
    "masks for too few tokens": (MASK_PER_IMAGE[:, :5], r"tokens as a mask \[batch, 13\].* got \(2, 5\)"),
    "masks for too many images": (MASK.expand(3, 13), "for 3 images, the run has 2"),
    "numbers": (torch.rand(13), r"tokens as indices, a slice or a bool mask, got torch.float32 of shape \(13,\)"),
    "a mask of bytes": (MASK.byte(), r"got torch.uint8 of shape \(13,\): for a mask, pass mask.bool\(\)"),
    "an array of floats": (np.ones((2, 13)), r"got torch.float64 of shape \(2, 13\): for a mask, pass"),
    "indices per image": (torch.ones(2, 3).long(), r"tokens as a list of indices, got indices of shape \(2, 3\)"),
    "names in a list": (["cls", "patch"], "tokens as indices, a slice or a bool mask, got list"),
    "a number": (0.5, "tokens as indices, a slice or a bool mask, got float"),
    "no index": ([], "tokens from 0 to 12 .*, got none"),
    "an index too many": (torch.arange(14), "tokens from 0 to 12 .*, got 13"),
    "a misspelt group": ("patchs", "one of 'cls', .* got 'patchs'"),
}


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(("chosen", "message"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize(
    "make",
    [
        lambda chosen: zero_ablate(MODEL, "mlp_out", tokens=chosen),
        lambda chosen: zero_ablate(MODEL, "pattern", queries=chosen),
        lambda chosen: block_attention(MODEL, [(chosen, "others")]),
        lambda chosen: block_attention(MODEL, [("cls", chosen)]),
    ],
    ids=["tokens", "queries", "blocked queries", "blocked keys"],
)
def test_refusals_are_short(images: Tensor, make: Callable[[Any], Intervention], chosen: Any, message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        MODEL.run_with_hooks(images, fwd_hooks=make(chosen))
    assert re.search(message.removeprefix("tokens "), str(refusal.value))
    assert "tensor(" not in str(refusal.value)
    assert len(str(refusal.value)) < 200


@pytest.mark.usefixtures("bad_input")
def test_pairs_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a list of pairs .* got 'patch' in it"):
        block_attention(MODEL, ("patch", "cls"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"a list of pairs .* got Tensor in it"):
        block_attention(MODEL, (MASK, MASK))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="got masks for 2 and 3 images"):
        attention_mask(MODEL.token_layout, [(MASK_PER_IMAGE, MASK.expand(3, 13))])
    with pytest.raises(ValueError, match="got masks for 2 and 3 images"):
        attention_mask(MODEL.token_layout, [(MASK_PER_IMAGE, "any"), (MASK.expand(3, 13), "cls")])


def test_restrictions_for_other_images_or_heads_are_refused(images: Tensor) -> None:
    for shape, message in (((3, 1, 13, 13), "for 3 images, the run has 2"), ((1, 2, 13, 13), "2 heads, the run has 3")):
        hooks = restrict_attention(MODEL, torch.ones(shape, dtype=torch.bool))
        with pytest.raises(ValueError, match=message):
            MODEL.run_with_hooks(images, fwd_hooks=hooks)
