"""A lens: the identity is direct projection to the bit, every stream has its map, and files hold all of it."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.categorical_updates import CategoricalUpdates, residual_composition, similarity_increase
from analyses.identifiability import Identifiability
from analyses.perturbation import Perturbation, perturb, self_only
from analyses.projection import STREAMS, Lens, Projection, project, stream_names
from analyses.segmentation import Segmentation
from analyses.statistics import Resampling
from analyses.sweep import sweep
from analyses.tuned_lens import TunedLens, read_tuned_lens
from hooked_vit import HookedViT

KINDS = ["cls", "gap_registers_layerscale", "parallel", "map"]


def random_lens(model: HookedViT, seed: int = 0) -> TunedLens:
    identity = TunedLens.identity(model.cfg)
    generator = torch.Generator().manual_seed(seed)
    parts = [0.2 * torch.randn(part.shape, generator=generator) for part in (identity.weight, identity.bias)]
    return TunedLens(*parts, record={"seed": seed})


def projected(model: HookedViT, images: Tensor, stream: str, lens: Lens | None) -> tuple[Projection, Sequence[Tensor]]:
    names = "result" if stream == "result" else stream_names(model.cfg, stream)
    _, cache = model.run_with_cache(images, names_filter=names)
    vectors = [cache["result", layer] for layer in range(3)] if stream == "result" else [cache[name] for name in names]
    return project(model, cache, stream, torch.tensor([3, 5]), k=2, lens=lens), vectors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", STREAMS)
def test_identity_is_direct_projection_to_the_bit(kind: str, stream: str, images: Tensor) -> None:
    model = ported(kind)
    if kind == "parallel" and stream == "resid_mid":
        pytest.skip("parallel blocks have none")
    direct, _ = projected(model, images, stream, None)
    tuned, _ = projected(model, images, stream, TunedLens.identity(model.cfg))
    for field in ("rank", "label_logit", "top_classes", "top_logits"):
        assert torch.equal(getattr(direct, field), getattr(tuned, field))


@pytest.mark.parametrize("kind", ["cls", "parallel"])
@pytest.mark.parametrize("stream", STREAMS)
def test_each_stream_passes_the_map_of_its_place(kind: str, stream: str, images: Tensor) -> None:
    model = ported(kind)
    if kind == "parallel" and stream == "resid_mid":
        pytest.skip("parallel blocks have none")
    lens, middle = random_lens(model), kind == "cls"
    found, vectors = projected(model, images, stream, lens)
    added = not stream.startswith("resid")
    for layer, vector in enumerate(vectors):
        if stream == "resid_pre":
            at = layer, 0
        elif stream == "resid_mid" or (middle and stream in ("attn_out", "result")):
            at = layer, 1
        else:
            at = layer + 1, 0
        if at[0] < 3:
            vector = vector + torch.einsum("...d,de->...e", vector, lens.weight[at]) + (0 if added else lens.bias[at])
        top = model.class_logits(vector).topk(2)
        torch.testing.assert_close(found.top_logits[layer], top.values, rtol=1e-4, atol=1e-5)


def test_every_analysis_that_projects_takes_it() -> None:
    model = ported("cls")
    generator = torch.Generator().manual_seed(5)
    items = [
        (torch.randn(3, 32, 24, generator=generator), label, torch.arange(24).expand(32, 24) < 9)
        for label in (3, 0, 3, 5)
    ]
    tables = {}
    for name, lens in (
        ("direct", None),
        ("identity", TunedLens.identity(model.cfg)),
        ("other", random_lens(model)),
    ):
        kinds = (Identifiability, CategoricalUpdates, Perturbation, Segmentation)
        analyses = [kind(lens=lens, resampling=Resampling(9)) for kind in kinds]
        tables[name] = sweep(model, items, analyses, batch_size=3)
    for analysis in ("identifiability", "categorical_updates", "perturbation", "segmentation"):
        direct, identity, other = (tables[name][analysis] for name in ("direct", "identity", "other"))
        assert direct.equals(identity), analysis
        assert not direct["value"].equals(other["value"]), analysis


def test_functions_on_caches_take_it(images: Tensor) -> None:
    model, labels = ported("cls"), torch.tensor([3, 5])
    _, cache = model.run_with_cache(images)
    lens = random_lens(model)
    assert not torch.equal(
        similarity_increase(model, cache, labels, "attn"), similarity_increase(model, cache, labels, "attn", lens=lens)
    )
    compositions = [residual_composition(model, cache, lens=chosen).previous for chosen in (None, lens)]
    assert not torch.equal(*compositions)
    runs = [perturb(model, images, labels, self_only(model), lens=chosen) for chosen in (None, lens)]
    assert not torch.equal(runs[0].rank_after, runs[1].rank_after)
    assert not torch.equal(runs[0].rank_before, runs[1].rank_before)


def test_a_sweep_is_not_resumed_with_another_lens(tmp_path: Path) -> None:
    model = ported("cls")
    items = [(torch.randn(3, 32, 24), label) for label in (3, 0)]
    lens = random_lens(model)
    sweep(model, items, [Identifiability(lens=lens)], out=tmp_path)
    lens.save(tmp_path / "lens.safetensors")
    sweep(model, items, [Identifiability(lens=read_tuned_lens(tmp_path / "lens.safetensors"))], out=tmp_path)
    for other in (random_lens(model, seed=1), None):
        with pytest.raises(ValueError, match=r"tables of another sweep[\s\S]*lens"):
            sweep(model, items, [Identifiability(lens=other)], out=tmp_path)


def test_a_file_holds_the_lens_and_a_record_beside_it(tmp_path: Path) -> None:
    model = ported("cls")
    lens = random_lens(model)
    lens.save(tmp_path / "new" / "lens.safetensors")
    read = read_tuned_lens(tmp_path / "new" / "lens.safetensors", model)
    assert torch.equal(read.weight, lens.weight)
    assert torch.equal(read.bias, lens.bias)
    assert dict(read.record) == {"seed": 0}
    beside = json.loads((tmp_path / "new" / "lens.json").read_text("utf-8"))
    assert beside == {"seed": 0, "fingerprint": lens.fingerprint}
    assert lens.fingerprint != random_lens(model, seed=1).fingerprint
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["lens.json", "lens.safetensors"]


def test_errors(tmp_path: Path, images: Tensor) -> None:
    model, other = ported("cls"), ported("parallel")
    lens = TunedLens.identity(model.cfg)
    _, cache = other.run_with_cache(images, names_filter="resid_post")
    with pytest.raises(ValueError, match="expected maps of 3 blocks with 1 streams of width 24 each, got 3 × 2 × 24"):
        project(other, cache, lens=lens)
    with pytest.raises(ValueError, match=r"is written to a .safetensors file"):
        lens.save(tmp_path / "lens.pt")
    with pytest.raises(FileNotFoundError, match="no file with a tuned lens"):
        read_tuned_lens(tmp_path / "lens.safetensors")
    (tmp_path / "lens.safetensors").write_bytes(b"not a lens")
    with pytest.raises(ValueError, match="cannot be read as a tuned lens"):
        read_tuned_lens(tmp_path / "lens.safetensors")
    TunedLens(lens.weight[:, :1, :, :], lens.bias[:, :1], {}).save(tmp_path / "lens.safetensors")
    with pytest.raises(ValueError, match="made for another model"):
        read_tuned_lens(tmp_path / "lens.safetensors", model)
    TunedLens(lens.weight, lens.bias, {"model": {"weights_sha256": "0"}}).save(tmp_path / "lens.safetensors")
    with pytest.raises(ValueError, match="a model of this shape with other weights"):
        read_tuned_lens(tmp_path / "lens.safetensors", model)
    with pytest.raises(ValueError, match="sublayer_norm applies to direct projection"):
        CategoricalUpdates(sublayer_norm=True, lens=lens)
    _, cache = model.run_with_cache(images, names_filter="attn_out")
    with pytest.raises(ValueError, match="sublayer_norm applies to direct projection"):
        project(model, cache, "attn_out", sublayer_norm=True, lens=lens)
