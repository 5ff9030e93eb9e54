"""Attention blocked between groups of tokens, compared with a pattern edited entry by entry."""

import pytest
import torch
from conftest import ported
from torch import Tensor

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


def test_unknown_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a group of tokens, one of 'cls', .*, 'self', 'others', got 'patches'"):
        block_attention(ported("cls"), [("cls", "patches")])
    with pytest.raises(ValueError, match="the model has no register token"):
        block_attention(ported("cls"), [("register", "patch")])
