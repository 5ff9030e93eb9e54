"""The base of analyses: any lens can be given, and what was fitted is checked before a sweep."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from analysis_batches import batch_of
from conftest import ported
from torch import Tensor

from analyses.analysis.base import Fitted
from analyses.identifiability import Identifiability
from analyses.sweep import sweep
from analyses.tuned_lens import TunedLens, compare_lenses, fit_tuned_lens
from hooked_vit import HookedViT

Items = list[tuple[Tensor, int]]


@dataclass
class Shift:
    """A lens of one's own, which Python does not hash."""

    by: float

    def check(self, model: HookedViT) -> None:
        pass

    def translate(self, vectors: Tensor, stream: str, layer: int) -> Tensor:
        return vectors * torch.linspace(1, self.by, vectors.shape[-1])


@pytest.fixture(scope="module")
def items() -> Items:
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(3, 32, 24, generator=generator), index % 7) for index in range(40)]


def test_a_lens_need_not_be_hashable() -> None:
    one, other = Shift(3.0), Shift(-3.0)
    batch = batch_of("cls", [Identifiability()], index=[0, 1])
    found = [batch.projection("resid_post", lens=lens) for lens in (one, other, one, None)]
    assert found[0] is found[2]
    assert not torch.equal(found[0].top_logits, found[1].top_logits)
    assert not torch.equal(found[0].top_logits, found[3].top_logits)
    assert not isinstance(one, Fitted)


def test_a_sweep_over_the_images_of_the_lens_is_refused(items: Items) -> None:
    model = ported("cls")
    lens = fit_tuned_lens(model, items[:20])
    assert isinstance(lens, Fitted)
    for overlapping in (items[:20], items[15:]):
        with pytest.raises(ValueError, match="the lens was fitted to images of this dataset"):
            sweep(model, overlapping, [Identifiability(lens=lens)])
        with pytest.raises(ValueError, match="the lens was fitted to images of this dataset"):
            compare_lenses(model, overlapping, lens)
    sweep(model, items[20:], [Identifiability(lens=lens)])


def test_a_sweep_of_another_model_is_refused(items: Items, tmp_path: Path) -> None:
    model = ported("cls")
    lens = TunedLens.identity(model.cfg)
    lens = TunedLens(lens.weight, lens.bias, {"model": {"weights_sha256": "0"}})
    with pytest.raises(ValueError, match="a model of this shape with other weights"):
        sweep(model, items, [Identifiability(lens=lens)], out=tmp_path / "found")
    with pytest.raises(ValueError, match="a model of this shape with other weights"):
        compare_lenses(model, items, lens)
    assert not (tmp_path / "found" / "record.json").exists()


def test_a_lens_for_cls_alone_meets_no_patches(items: Items) -> None:
    model = ported("cls")
    lens = TunedLens.identity(model.cfg)
    lens = TunedLens(lens.weight, lens.bias, {"tokens": "read"})
    for measure in (
        lambda: sweep(model, items, [Identifiability(lens=lens)]),
        lambda: compare_lenses(model, items, lens),
    ):
        with pytest.raises(ValueError, match=r"fitted to CLS alone .* fit one to tokens 'all'"):
            measure()


def test_a_head_that_reads_patches_has_a_lens_for_them(items: Items) -> None:
    model = ported("gap_registers_layerscale")
    lens = fit_tuned_lens(model, items[:20], tokens="read")
    sweep(model, items[20:], [Identifiability(lens=lens)])
