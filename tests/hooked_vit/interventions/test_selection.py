"""Selections: their masks compared with explicit indices, and the errors."""

import pytest
import torch
from conftest import ported

from hooked_vit import TokenLayout
from hooked_vit.interventions.selection import Selection, select_indices, select_tokens, token_group

MODEL = ported("swiglu_packed")  # CLS, three registers, 12 patches; 3 heads of width 8
CFG = MODEL.cfg


@pytest.mark.parametrize(
    ("name", "where", "index"),
    [
        ("blocks.1.hook_resid_pre", {"tokens": 4}, (slice(None), 4)),
        ("blocks.1.hook_resid_pre", {"tokens": "register"}, (slice(None), slice(1, 4))),
        ("blocks.1.hook_resid_pre", {"tokens": slice(2, 9, 3)}, (slice(None), [2, 5, 8])),
        ("blocks.1.attn.hook_z", {"heads": -1}, (slice(None), slice(None), 2)),
        ("blocks.1.attn.hook_z", {"heads": [0], "tokens": [0, 15]}, (slice(None), [0, 15], 0)),
        (
            "blocks.1.attn.hook_pattern", {"heads": 1, "queries": "cls", "keys": "patch"},
            (slice(None), 1, 0, slice(4, 16)),
        ),
        ("blocks.1.mlp.hook_post", {"neurons": [3, 7], "tokens": "cls"}, (slice(None), 0, [3, 7])),
    ],
)  # fmt: skip
def test_the_mask_marks_the_indices(name: str, where: dict, index: tuple) -> None:
    with torch.no_grad():
        _, cache = MODEL.run_with_cache(torch.randn(2, 3, 32, 24), names_filter=name)
    selection = Selection.from_keywords(where)
    selection.check(name, CFG)
    expected = torch.zeros_like(cache[name], dtype=torch.bool)
    expected[index] = True
    mask = selection.mask(cache[name], name, CFG)
    assert mask is not None
    assert torch.equal(mask.expand_as(expected), expected)


def test_a_mask_for_each_image() -> None:
    mask = torch.rand(2, 16) < 0.5
    found = Selection(tokens=mask).mask(torch.zeros(2, 16, 3, 8), "blocks.0.attn.hook_z", CFG)
    assert found is not None
    assert torch.equal(found, mask[:, :, None, None])
    with pytest.raises(ValueError, match="tokens is a mask for 2 images, the run has 3"):
        Selection(tokens=mask).mask(torch.zeros(3, 16, 24), "blocks.0.hook_resid_pre", CFG)


def test_everything_needs_no_mask() -> None:
    assert Selection().mask(torch.zeros(1, 16, 24), "blocks.0.hook_resid_pre", CFG) is None


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(
    ("name", "where", "message"),
    [
        ("blocks.0.hook_resid_pre", {"heads": 0}, "has axes batch, token, d_model, and so no heads"),
        ("blocks.0.attn.hook_pattern", {"tokens": 0}, r"of attention, tokens are queries and keys"),
        ("blocks.0.attn.hook_z", {"heads": 3}, "expected heads from 0 to 2 .*, got 3"),
        ("blocks.0.attn.hook_z", {"heads": []}, "expected heads from 0 to 2 .*, got none"),
        ("blocks.0.mlp.hook_post", {"neurons": [-500]}, "expected neurons from 0 to 29"),
        ("blocks.0.hook_resid_pre", {"tokens": 16}, "expected tokens from 0 to 15"),
        ("blocks.0.hook_resid_pre", {"tokens": "dist"}, "the model has no dist token; it has cls, register, patch"),
        ("blocks.0.hook_resid_pre", {"tokens": "patches"}, "a group of tokens, one of 'cls', .*, got 'patches'"),
        ("blocks.0.hook_resid_pre", {"tokens": torch.ones(5) > 0}, r"tokens as a mask of shape \[16\], got \(5,\)"),
        ("blocks.0.hook_resid_pre", {"tokens": torch.ones(2, 5) > 0}, r"as a mask \[batch, 16\]"),
    ],
)  # fmt: skip
def test_what_does_not_exist_is_refused(name: str, where: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Selection.from_keywords(where).check(name, CFG)


def test_unknown_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected any of tokens, heads, neurons, queries, keys, latents, got 'head'"):
        Selection.from_keywords({"head": 1})


def test_groups_with_fewer_or_more_patches() -> None:
    layout = TokenLayout(1, 0, 2, (2, 2))
    assert token_group(layout, "patch", 5).tolist() == [False, False, False, True, True]
    assert token_group(layout, "prefix", 9).tolist() == [True] * 3 + [False] * 6
    assert select_tokens("any", layout, 7).all()
    assert select_indices(torch.tensor([True, False]), 2, "heads").tolist() == [True, False]
