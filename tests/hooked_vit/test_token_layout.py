"""The order of the tokens, the grid of patches, and the tokens that a mask keeps, each compared with a loop."""

import re

import pytest
import torch

from hooked_vit import KeptTokens, TokenLayout

LAYOUT = TokenLayout(n_cls=1, n_dist=1, n_registers=3, grid=(4, 2))


def test_counts_and_indices_agree_with_the_list_of_types() -> None:
    types = list(LAYOUT.token_types)
    assert types == ["cls", "dist"] + ["register"] * 3 + ["patch"] * 8
    assert LAYOUT.n_tokens == len(types)
    assert LAYOUT.n_prefix == 5
    assert LAYOUT.n_patches == types.count("patch")
    assert LAYOUT.cls == types.index("cls")
    assert LAYOUT.dist == types.index("dist")
    assert set(types[LAYOUT.registers]) == {"register"}
    assert len(types[LAYOUT.registers]) == 3
    assert types[LAYOUT.prefix] == types[:5]
    assert types[LAYOUT.patches] == ["patch"] * 8
    assert LAYOUT.is_patch.tolist() == [token_type == "patch" for token_type in types]


def test_a_model_without_a_token_has_no_index_for_it() -> None:
    bare = TokenLayout(0, 0, 2, (2, 3))
    assert bare.cls is None
    assert bare.dist is None
    assert bare.registers == slice(0, 2)
    assert TokenLayout(0, 1, 0, (2, 3)).dist == 0


def test_patches_are_in_row_order() -> None:
    expected = [(row, column) for row in range(4) for column in range(2)]
    assert [tuple(pair) for pair in LAYOUT.positions.tolist()] == expected
    for patch, (row, column) in enumerate(expected):
        assert LAYOUT.patch_token(row, column) == LAYOUT.n_prefix + patch


@pytest.mark.parametrize(("row", "column"), [(4, 0), (0, 2), (-1, 0)])
def test_a_patch_off_the_grid_is_refused(row: int, column: int) -> None:
    message = f"no patch at row {row}, column {column}: the grid is 4 rows × 2 columns"
    with pytest.raises(IndexError, match=re.escape(message)):
        LAYOUT.patch_token(row, column)


def test_values_are_arranged_on_the_grid() -> None:
    values = torch.randn(3, 8)
    grid = LAYOUT.to_grid(values)
    assert grid.shape == (3, 4, 2)
    for row in range(4):
        for column in range(2):
            assert torch.equal(grid[:, row, column], values[:, LAYOUT.patch_token(row, column) - LAYOUT.n_prefix])


def test_prefix_tokens_on_the_grid_are_refused() -> None:
    message = "expected 8 patches in the last axis (4 × 2), got shape (2, 13); take `[..., layout.patches]` first"
    with pytest.raises(ValueError, match=re.escape(message)):
        LAYOUT.to_grid(torch.zeros(2, 13))
    with pytest.raises(ValueError, match=r"got shape \(2, 5\)$"):
        LAYOUT.to_grid(torch.zeros(2, 5))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_kept_tokens_are_the_masked_in_tokens_in_order(share: float) -> None:
    generator = torch.Generator().manual_seed(int(10 * share))
    mask = torch.rand(6, LAYOUT.n_tokens, generator=generator) < share
    mask[:, 0] = True
    kept = KeptTokens.from_mask(mask, LAYOUT)
    values = torch.randn(6, LAYOUT.n_tokens, 2, 3, generator=generator)
    taken = kept.take(values)
    most = max(int(row.sum()) for row in mask)
    assert taken.shape == (6, most, 2, 3)
    for image in range(6):
        tokens = [token for token in range(LAYOUT.n_tokens) if mask[image, token]]
        n = len(tokens)
        assert kept.index[image, :n].tolist() == tokens
        assert kept.valid[image].tolist() == [True] * n + [False] * (most - n)
        assert kept.is_patch[image].tolist() == [token >= 5 for token in tokens] + [False] * (most - n)
        for index, token in enumerate(tokens):
            assert torch.equal(taken[image, index], values[image, token])


def test_values_without_further_axes_are_taken_too() -> None:
    mask = torch.tensor([[True, False, True, True]])
    kept = KeptTokens.from_mask(mask, TokenLayout(1, 0, 0, (1, 3)))
    assert kept.take(torch.tensor([[4, 5, 6, 7]])).tolist() == [[4, 6, 7]]
