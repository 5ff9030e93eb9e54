"""The paper's interventions on attention, compared with edits of the pattern written out token by token."""

from collections.abc import Callable, Sequence

import pytest
import torch
from attention_patterns import logits_and_patterns
from conftest import ported
from torch import Tensor

from analyses.perturbation.attention import no_cls, self_only
from hooked_vit import HookedViT


def edited_by_hand(
    model: HookedViT, images: Tensor, edit: Callable[[Tensor, int], None], blocks: Sequence[int] = (0, 1, 2)
) -> Tensor:
    """Logits when `edit(row, query)` rewrites each row of the pattern."""

    def rewrite(pattern: Tensor, hook: object) -> Tensor:
        for query in range(pattern.shape[2]):
            edit(pattern[:, :, query], query)
        return pattern

    return model.run_with_hooks(images, fwd_hooks=[(("pattern", block), rewrite) for block in blocks])


@pytest.mark.parametrize("blocks", [None, [1], [0, -1]])
def test_self_only(kind: str, images: Tensor, blocks: list[int] | None) -> None:
    model = ported(kind)
    n_prefix, chosen = model.token_layout.n_prefix, [0, 1, 2] if blocks is None else [block % 3 for block in blocks]

    def edit(row: Tensor, query: int) -> None:
        if query >= n_prefix:
            row[:], row[..., query] = 0, 1

    logits, pattern = logits_and_patterns(model, images, self_only(model, blocks))
    torch.testing.assert_close(logits, edited_by_hand(model, images, edit, chosen), rtol=1e-4, atol=1e-5)
    for block in range(3):
        patch_rows = pattern[block, :, :, model.token_layout.patches]
        itself = torch.eye(model.token_layout.n_tokens)[model.token_layout.patches].expand_as(patch_rows)
        assert torch.equal(patch_rows, itself) == (block in chosen)


def test_no_cls(kind: str, images: Tensor) -> None:
    model = ported(kind)
    layout = model.token_layout
    if layout.cls is None:
        with pytest.raises(ValueError, match="the model has no cls token; it has"):
            no_cls(model)
        return

    def edit(row: Tensor, query: int) -> None:
        if query >= layout.n_prefix:
            row[..., 0] = 0

    logits, pattern = logits_and_patterns(model, images, no_cls(model))
    torch.testing.assert_close(logits, edited_by_hand(model, images, edit), rtol=1e-4, atol=1e-5)
    assert not pattern[:, :, :, layout.patches, 0].any()
    _, before = logits_and_patterns(model, images, ())
    torch.testing.assert_close(pattern[0, ..., 1:], before[0, ..., 1:])  # the rest of each row is unchanged
    torch.testing.assert_close(pattern[0, :, :, layout.prefix], before[0, :, :, layout.prefix])


def test_blocks_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="no layer 3"):
        self_only(ported("cls"), blocks=[3])
