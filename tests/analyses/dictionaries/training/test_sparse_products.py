"""Sparse products and their gradients against dense ones."""

import pytest
import torch

from analyses.dictionaries.choosing import largest, largest_of_batch
from analyses.dictionaries.training import sparse_products
from analyses.dictionaries.training.sparse_products import LargestOfBatch, LargestOfRow, decode_active, encode_active


def weights(n_latents: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = (n_latents, 6), (n_latents,), (n_latents, 5)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("n_latents", [16, 13])
@pytest.mark.parametrize(
    ("choice", "dense"),
    [
        (LargestOfRow(3), largest),
        (LargestOfBatch(3), largest_of_batch),
        (LargestOfBatch(3, guess=0.5), largest_of_batch),
        (LargestOfBatch(3, guess=50.0), largest_of_batch),
    ],
)  # fmt: skip
@pytest.mark.parametrize("chunk", [40, 2**20])
def test_values_and_gradients_equal_the_dense_computation(n_latents, choice, dense, chunk, monkeypatch) -> None:
    monkeypatch.setattr(sparse_products, "_CHUNK", chunk)
    x = torch.randn(9, 6, dtype=torch.float64)
    target = torch.randn(9, 5, dtype=torch.float64)
    enc, bias, dec = weights(n_latents)
    active = encode_active(x, enc, bias, choice)
    found = decode_active(active, dec)
    gradients = torch.autograd.grad((found - target).square().sum(), (enc, bias, dec))
    latents = dense(x @ enc.T + bias, 3)
    expected = latents @ dec
    torch.testing.assert_close(found, expected)
    for a, b in zip(gradients, torch.autograd.grad((expected - target).square().sum(), (enc, bias, dec)), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(active.rows, active.rows.sort().values)
    rebuilt = torch.zeros(9, n_latents, dtype=torch.float64)
    rebuilt[active.rows, active.columns] = active.values.detach()
    torch.testing.assert_close(rebuilt, latents.detach())
    first = active.between(2, 7)
    assert ((first.columns >= 2) & (first.columns < 7)).all()
    torch.testing.assert_close(decode_active(first, dec), latents[:, 2:7] @ dec[2:7])


def test_an_activation_without_active_latents() -> None:
    enc, bias, dec = weights(16)
    active = encode_active(torch.zeros(3, 6, dtype=torch.float64), enc, -bias.abs() - 1, LargestOfRow(4))
    assert len(active.values) == 0
    found = decode_active(active, dec)
    assert torch.equal(found, torch.zeros(3, 5, dtype=torch.float64))
    found.sum().backward()
    assert not dec.grad.any()


@pytest.mark.parametrize(("n_latents", "k"), [(96, 2), (512, 2), (101, 2), (40, 5)])
def test_the_largest_of_rows_in_two_steps(n_latents: int, k: int) -> None:
    pre = torch.randn(13, n_latents, generator=torch.Generator().manual_seed(0))
    values, columns = sparse_products._largest_of_rows(pre, k)
    expected = pre.topk(k, dim=-1)
    assert torch.equal(values.sort(descending=True).values, expected.values)
    assert torch.equal(columns.sort().values, expected.indices.sort().values)
    assert torch.equal(pre.gather(1, columns), values)


def test_places_of_a_mask() -> None:
    for shape in ((8, 8), (3, 5), (1, 16)):
        mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.7
        assert torch.equal(sparse_products._places(mask), mask.flatten().nonzero()[:, 0])
