"""Interventions on attention compared with edits of the pattern written out token by token."""

import pytest
import torch
from analysis_batches import model_of

from analyses.perturbation.attention import no_cls, self_only
from hooked_vit import HookedViT, TokenLayout
from hooked_vit.interventions import attention_mask, block_attention, restrict_attention


def patterns(model: HookedViT, images: torch.Tensor, hooks) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and patterns [layer batch head query key] with hooks on."""
    with model.hooks(fwd_hooks=hooks):
        logits, cache = model.run_with_cache(images, names_filter="pattern")
    return logits, torch.stack([cache["pattern", layer] for layer in range(model.cfg.n_layers)])


def by_hand(model: HookedViT, images: torch.Tensor, edit, blocks=(0, 1, 2)) -> torch.Tensor:
    """Logits when `edit(row, query)` rewrites each row of the pattern."""

    def rewrite(pattern, hook):
        for query in range(pattern.shape[2]):
            edit(pattern[:, :, query], query)
        return pattern

    return model.run_with_hooks(images, fwd_hooks=[(("pattern", block), rewrite) for block in blocks])


@pytest.mark.parametrize("blocks", [None, [1], [0, -1]])
def test_self_only(kind, images, blocks):
    model = model_of(kind)
    n_prefix, chosen = model.token_layout.n_prefix, [0, 1, 2] if blocks is None else [block % 3 for block in blocks]

    def edit(row, query):
        if query >= n_prefix:
            row[:], row[..., query] = 0, 1

    logits, pattern = patterns(model, images, self_only(model, blocks))
    torch.testing.assert_close(logits, by_hand(model, images, edit, chosen), rtol=1e-4, atol=1e-5)
    for block in range(3):
        of_patches = pattern[block, :, :, model.token_layout.patches]
        itself = torch.eye(model.token_layout.n_tokens)[model.token_layout.patches].expand_as(of_patches)
        assert torch.equal(of_patches, itself) == (block in chosen)


def test_no_cls(kind, images):
    model = model_of(kind)
    layout = model.token_layout
    if layout.cls is None:
        with pytest.raises(ValueError, match="the model has no cls token; it has"):
            no_cls(model)
        return

    def edit(row, query):
        if query >= layout.n_prefix:
            row[..., 0] = 0

    logits, pattern = patterns(model, images, no_cls(model))
    torch.testing.assert_close(logits, by_hand(model, images, edit), rtol=1e-4, atol=1e-5)
    assert not pattern[:, :, :, layout.patches, 0].any()
    _, before = patterns(model, images, ())
    torch.testing.assert_close(pattern[0, ..., 1:], before[0, ..., 1:])  # what is left stays what it was
    torch.testing.assert_close(pattern[0, :, :, layout.prefix], before[0, :, :, layout.prefix])


def test_the_remaining_attention_may_be_renormalised(images):
    model = model_of("dynamic")
    layout = model.token_layout
    _, pattern = patterns(model, images, block_attention(model, [("patch", "register"), ("cls", "others")]))
    _, before = patterns(model, images, ())
    expected = before[0].clone()
    expected[:, :, layout.patches, layout.registers] = 0
    expected[:, :, 0, 1:] = 0
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(pattern[0], expected)


@pytest.mark.parametrize("kind", ["distilled", "swiglu_packed"])
def test_masks_follow_their_groups(kind):
    layout = model_of(kind).token_layout
    types, queries, keys = layout.token_types, ("cls", "dist", "register", "patch"), ("self", "others")
    known = [one for one in queries if one in types]
    for query in (*known, "prefix", "any"):
        for key in (*known, "prefix", "any", *keys):
            allowed = attention_mask(layout, [(query, key)])
            for i, of_query in enumerate(types):
                for j, of_key in enumerate(types):
                    is_query = query == "any" or of_query == query or (query == "prefix" and of_query != "patch")
                    is_key = (
                        key == "any" or of_key == key or (key == "prefix" and of_key != "patch")
                        or (key == "self" and i == j) or (key == "others" and i != j)
                    )  # fmt: skip
                    assert allowed[i, j] == (not (is_query and is_key))
    both = attention_mask(layout, [("patch", "cls"), ("cls", "patch")])
    assert torch.equal(both, attention_mask(layout, [("patch", "cls")]) & attention_mask(layout, [("cls", "patch")]))


@pytest.mark.parametrize("renormalise", [True, False])
def test_interventions_compose(images, renormalise):
    model = model_of("cls")
    one = block_attention(model, [("patch", "cls")], renormalise=renormalise)
    other = block_attention(model, [("cls", "patch")], renormalise=renormalise)
    together = block_attention(model, [("patch", "cls"), ("cls", "patch")], renormalise=renormalise)
    expected = patterns(model, images, together)
    for found in (patterns(model, images, one + other), patterns(model, images, other + one)):
        torch.testing.assert_close(found, expected)


def test_interventions_that_leave_no_key_are_refused(images):
    model = model_of("cls")
    together = block_attention(model, [("patch", "self")]) + block_attention(model, [("patch", "others")])
    with pytest.raises(ValueError, match="query token 1 is left without a key to attend to"):
        model.run_with_hooks(images, fwd_hooks=together)


@pytest.mark.parametrize("renormalise", [True, False])
def test_any_mask(images, renormalise):
    model = model_of("qk_norm")
    allowed = torch.rand(2, 3, 13, 13, generator=torch.Generator().manual_seed(0)) < 0.5
    allowed |= torch.eye(13, dtype=torch.bool)
    _, pattern = patterns(model, images, restrict_attention(model, allowed, renormalise=renormalise))
    _, before = patterns(model, images, ())
    expected = before[0] * allowed
    expected = expected / expected.sum(-1, keepdim=True) if renormalise else expected
    torch.testing.assert_close(pattern[0], expected)


def test_interventions_apply_to_runs_with_dropped_tokens(images):
    model = model_of("cls")
    keep = torch.ones(2, 13, dtype=torch.bool)
    keep[0, 5:9], keep[1, 2] = False, False
    with model.hooks(fwd_hooks=self_only(model)):
        logits = model(images, token_mask=keep)
        assert logits.isfinite().all()
        for image in range(2):
            alone = model(images[[image]], token_mask=keep[[image]])
            torch.testing.assert_close(logits[[image]], alone, rtol=1e-4, atol=1e-5)


def test_the_model_is_restored(images):
    model = model_of("cls")
    before = model(images)
    with pytest.raises(ValueError, match="left without a key"):
        model.run_with_hooks(images, fwd_hooks=block_attention(model, [("patch", "any")]))
    assert torch.equal(model(images), before)


def test_errors_say_what_is_wrong(images, bad_input):
    model, layout = model_of("cls"), TokenLayout(1, 0, 0, (1, 2))
    with pytest.raises(ValueError, match="one of 'cls', 'dist', 'register', 'patch', 'prefix', 'any', got 'patches'"):
        block_attention(model, [("patches", "cls")])
    with pytest.raises(ValueError, match="'any', 'self', 'others', got 'itself'"):
        attention_mask(layout, [("patch", "itself")])
    with pytest.raises(ValueError, match="no register token; it has cls, patch"):
        attention_mask(layout, [("register", "patch")])
    with pytest.raises(ValueError, match="no layer 3"):
        self_only(model, blocks=[3])
    with pytest.raises(ValueError, match="query token 2 is left without a key to attend to"):
        restrict_attention(model, torch.arange(13)[:, None] != 2 * torch.ones(13, 13))
    with pytest.raises(ValueError, match=r"expected a bool mask .* got torch.float32 of shape \(13, 13\)"):
        restrict_attention(model, torch.ones(13, 13))
    with pytest.raises(ValueError, match=r"expected a bool mask .* got torch.bool of shape \(3, 13, 13\)"):
        restrict_attention(model, torch.ones(3, 13, 13, dtype=torch.bool))
    with pytest.raises(ValueError, match="for 3 queries and 3 keys, the attention has 13 and 13"):
        model.run_with_hooks(images, fwd_hooks=restrict_attention(model, attention_mask(layout, [])))
