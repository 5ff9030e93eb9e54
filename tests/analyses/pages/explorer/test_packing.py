"""Packed arrays come back: whole numbers exactly, others within the error that is promised, in few characters."""

import json

import pytest
import torch
from explored import unpacked

from analyses.pages.explorer.packing import packed, packed_linear, packed_rows, text_length


@pytest.mark.parametrize(("most", "kind"), [(255, "u1"), (256, "u2"), (65_535, "u2"), (65_536, "u4")])
def test_whole_numbers_exactly_in_few_bytes(most: int, kind: str) -> None:
    values = torch.tensor([[0, 3], [most, 1], [7, most - 1]])
    part = packed(values)
    assert part["type"] == kind
    assert torch.equal(unpacked(part), values)


def test_other_numbers_as_float32() -> None:
    values = torch.randn(2, 3, 4)
    assert torch.equal(unpacked(packed(values)), values)


def test_linear_steps() -> None:
    values = 30 * torch.randn(5, 7)
    part = packed_linear(values)
    error = (unpacked(part) - values).abs().max()
    assert error <= part["step"] / 2 + 1e-5
    assert part["step"] == pytest.approx((values.max() - values.min()).item() / 65535)
    constant = torch.full((3,), 2.5)
    assert torch.equal(unpacked(packed_linear(constant)).float(), constant)


@pytest.mark.parametrize(("levels", "with_signs"), [(255, False), (31, False), (127, True)])
def test_rows_are_relative_to_their_largest(levels: int, with_signs: bool) -> None:
    values = torch.rand(4, 6, 50) ** 4 * torch.tensor([1e-6, 1.0, 30.0, 0.0])[:, None, None]
    if with_signs:
        values = values * torch.randn_like(values).sign()
    part = packed_rows(values, levels)
    back = unpacked(part)
    largest = values.abs().amax(-1, keepdim=True)
    assert ((back - values).abs() <= largest / levels * (1 + 1e-6)).all()
    at = values.abs().argmax(-1, keepdim=True)
    assert torch.allclose(back.gather(-1, at).float(), values.gather(-1, at))
    # near zero they are finer than equal steps would be
    low = values.abs() < largest * 0.01
    assert ((back - values).abs() <= largest / levels * 0.2 + 1e-30)[low].all()


def test_the_length_is_about_that_in_the_page() -> None:
    part = packed_rows(torch.rand(40, 200), 255)
    assert text_length(part) == pytest.approx(len(json.dumps(part)), rel=0.05)
