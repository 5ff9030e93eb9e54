"""Attacks equal their formulas, stay within their size and the range of pixels, and raise the loss."""

import sys

import pytest
import torch
from perturbed_batches import MEAN, STD, perturbed_batch
from torch import Tensor
from torch.nn import functional as F

from analyses.analysis.base import AnalysisBatch
from analyses.robustness import FGSM, PGD


def pixels(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    return images * std + mean


def loss(batch: AnalysisBatch, images: Tensor) -> Tensor:
    return F.cross_entropy(batch.model(images), batch.labels, reduction="none")


def step(batch: AnalysisBatch, current: Tensor, size: float) -> Tensor:
    """One step along the sign of the gradient, written from the definition."""
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    current = current.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(batch, (current - mean) / std).sum(), current)
    # gradients near zero may have another sign in another order of sums: NaN, which equals anything below
    sign = torch.where(gradient.abs() > 1e-3 * gradient.abs().max(), gradient.sign(), torch.nan)
    return (current.detach() + size * sign).clamp(0, 1)


@pytest.mark.parametrize("kind_name", ["cls", "gap_registers_layerscale"])
def test_fgsm_is_its_formula(kind_name: str) -> None:
    batch = perturbed_batch(kind_name)
    assert batch.images is not None
    with torch.no_grad():
        found = FGSM(2.0)(batch)
    expected = step(batch, pixels(batch.images).clamp(0, 1), 2 / 255)
    known = expected.isfinite()
    assert known.float().mean() > 0.95
    torch.testing.assert_close(pixels(found)[known], expected[known], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert (loss(batch, found) > loss(batch, batch.images)).all()
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in batch.model.parameters())


def test_pgd_is_its_formula() -> None:
    batch = perturbed_batch("cls")
    assert batch.images is not None
    with torch.no_grad():
        found = pixels(PGD(2.0, step=1.0, steps=3)(batch))
    start = pixels(batch.images).clamp(0, 1)
    current = start
    for _ in range(3):
        current = step(batch, torch.where(current.isnan(), start, current), 1 / 255)
        current = (start + (current - start).clamp(-2 / 255, 2 / 255)).clamp(0, 1)
    known = current.isfinite()
    assert known.float().mean() > 0.9
    # where one pixel of a small gradient went the other way, later steps differ at few others
    assert ((found - current)[known].abs() > 1e-5).float().mean() < 0.01
    assert (found - start).abs().max() < 2 / 255 + 1e-5
    assert found.min() > -1e-5
    assert found.max() < 1 + 1e-5
    assert PGD(2.0).passes == 30


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected a size above 0, in steps of 8-bit values, got 0"):
        FGSM(0.0)
    with pytest.raises(ValueError, match="expected at least one step, got 0"):
        PGD(1.0, steps=0)
    with pytest.raises(ValueError, match="expected a size above 0"):
        PGD(1.0, step=-1.0)
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(ImportError, match=r"PGD needs captum: pip install 'hooked-vit\[explain\]'"):
        PGD(1.0)
