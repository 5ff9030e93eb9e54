"""Attention blocked between groups of tokens, compared with a pattern edited entry by entry."""

import pytest
import torch
from attention_patterns import logits_and_patterns
from conftest import ported
from torch import Tensor

from hooked_vit import TokenLayout
from hooked_vit.interventions import attention_mask, block_attention, restrict_attention, zero_ablate


@torch.no_grad()
@pytest.mark.parametrize("renormalise", [True, False])
def test_blocked_keys_get_no_attention(kind: str, images: Tensor, renormalise: bool) -> None:
    model = ported(kind)
    layout = model.token_layout

    def block(pattern: Tensor, hook: object) -> Tensor:
        edited = pattern.clone()
        for query in range(layout.n_prefix, layout.n_tokens):
            for key in range(layout.n_tokens):
                if key != query and key >= layout.n_prefix:
                    edited[:, :, query, key] = 0
        return edited / edited.sum(-1, keepdim=True) if renormalise else edited

    # patches attend to prefix tokens and themselves
    allowed = attention_mask(layout, [("patch", "patch")]) | torch.eye(layout.n_tokens, dtype=torch.bool)
    found = model.run_with_hooks(images, fwd_hooks=restrict_attention(model, allowed, [1], renormalise))
    expected = model.run_with_hooks(images, fwd_hooks=[(("pattern", 1), block)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_blocked_attention_adds_up_with_other_interventions(images: Tensor) -> None:
    model = ported("cls")
    both = block_attention(model, [("cls", "patch")], [1]) + zero_ablate(model, ("mlp_out", 0))
    logits = [model.run_with_hooks(images, fwd_hooks=hooks) for hooks in (both, both[:1], both[1:])]
    assert not torch.allclose(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


def test_the_remaining_attention_may_be_renormalised(images: Tensor) -> None:
    model = ported("dynamic")
    layout = model.token_layout
    hooks = block_attention(model, [("patch", "register"), ("cls", "others")])
    _, pattern = logits_and_patterns(model, images, hooks)
    _, before = logits_and_patterns(model, images, ())
    expected = before[0].clone()
    expected[:, :, layout.patches, layout.registers] = 0
    expected[:, :, 0, 1:] = 0
    torch.testing.assert_close(pattern[0], expected / expected.sum(-1, keepdim=True))


@pytest.mark.parametrize("kind", ["distilled", "swiglu_packed"])
def test_masks_follow_their_groups(kind: str) -> None:
    layout = ported(kind).token_layout
    types, relations = layout.token_types, ("self", "others")
    known = [group for group in ("cls", "dist", "register", "patch") if group in types]
    for query in (*known, "prefix", "any"):
        for key in (*known, "prefix", "any", *relations):
            allowed = attention_mask(layout, [(query, key)])
            for i, query_type in enumerate(types):
                for j, key_type in enumerate(types):
                    is_query = query == "any" or query_type == query or (query == "prefix" and query_type != "patch")
                    is_key = (
                        key == "any" or key_type == key or (key == "prefix" and key_type != "patch")
                        or (key == "self" and i == j) or (key == "others" and i != j)
                    )  # fmt: skip
                    assert allowed[i, j] == (not (is_query and is_key))
    both = attention_mask(layout, [("patch", "cls"), ("cls", "patch")])
    assert torch.equal(both, attention_mask(layout, [("patch", "cls")]) & attention_mask(layout, [("cls", "patch")]))


@pytest.mark.parametrize("renormalise", [True, False])
def test_interventions_compose(images: Tensor, renormalise: bool) -> None:
    model = ported("cls")
    first = block_attention(model, [("patch", "cls")], renormalise=renormalise)
    second = block_attention(model, [("cls", "patch")], renormalise=renormalise)
    together = block_attention(model, [("patch", "cls"), ("cls", "patch")], renormalise=renormalise)
    expected = logits_and_patterns(model, images, together)
    for hooks in (first + second, second + first):
        torch.testing.assert_close(logits_and_patterns(model, images, hooks), expected)


def test_interventions_that_leave_no_key_are_refused(images: Tensor) -> None:
    model = ported("cls")
    together = block_attention(model, [("patch", "self")]) + block_attention(model, [("patch", "others")])
    with pytest.raises(ValueError, match="query token 1 is left without a key to attend to"):
        model.run_with_hooks(images, fwd_hooks=together)


@pytest.mark.parametrize("renormalise", [True, False])
def test_attention_is_restricted_to_any_mask(images: Tensor, renormalise: bool) -> None:
    model = ported("qk_norm")
    allowed = torch.rand(2, 3, 13, 13, generator=torch.Generator().manual_seed(0)) < 0.5
    allowed |= torch.eye(13, dtype=torch.bool)
    _, pattern = logits_and_patterns(model, images, restrict_attention(model, allowed, renormalise=renormalise))
    _, before = logits_and_patterns(model, images, ())
    expected = before[0] * allowed
    expected = expected / expected.sum(-1, keepdim=True) if renormalise else expected
    torch.testing.assert_close(pattern[0], expected)


def test_interventions_apply_to_runs_with_dropped_tokens(images: Tensor) -> None:
    model = ported("cls")
    keep = torch.ones(2, 13, dtype=torch.bool)
    keep[0, 5:9], keep[1, 2] = False, False
    with model.hooks(fwd_hooks=block_attention(model, [("patch", "others")])):
        logits = model(images, token_mask=keep)
        assert logits.isfinite().all()
        for image in range(2):
            alone = model(images[[image]], token_mask=keep[[image]])
            torch.testing.assert_close(logits[[image]], alone, rtol=1e-4, atol=1e-5)


def test_the_model_is_restored_after_a_refusal(images: Tensor) -> None:
    model = ported("cls")
    before = model(images)
    with pytest.raises(ValueError, match="left without a key"):
        model.run_with_hooks(images, fwd_hooks=block_attention(model, [("patch", "any")]))
    assert torch.equal(model(images), before)


def test_groups_that_the_layout_lacks_are_refused() -> None:
    layout = TokenLayout(1, 0, 0, (1, 2))
    with pytest.raises(ValueError, match="'any', 'self', 'others', got 'itself'"):
        attention_mask(layout, [("patch", "itself")])
    with pytest.raises(ValueError, match="no register token; it has cls, patch"):
        attention_mask(layout, [("register", "patch")])


@pytest.mark.usefixtures("bad_input")
def test_masks_that_do_not_fit_are_refused(images: Tensor) -> None:
    model = ported("cls")
    with pytest.raises(ValueError, match="query token 2 is left without a key to attend to"):
        restrict_attention(model, torch.arange(13)[:, None] != 2 * torch.ones(13, 13))
    with pytest.raises(ValueError, match=r"expected a bool mask .* got torch.float32 of shape \(13, 13\)"):
        restrict_attention(model, torch.ones(13, 13))
    with pytest.raises(ValueError, match=r"expected a bool mask .* got torch.bool of shape \(3, 13, 13\)"):
        restrict_attention(model, torch.ones(3, 13, 13, dtype=torch.bool))
    small = attention_mask(TokenLayout(1, 0, 0, (1, 2)), [])
    with pytest.raises(ValueError, match="for 3 queries and 3 keys, the attention has 13 and 13"):
        model.run_with_hooks(images, fwd_hooks=restrict_attention(model, small))


def test_unknown_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a group of tokens, one of 'cls', .*, 'self', 'others', got 'patches'"):
        block_attention(ported("cls"), [("cls", "patches")])
    with pytest.raises(ValueError, match="the model has no register token"):
        block_attention(ported("cls"), [("register", "patch")])
