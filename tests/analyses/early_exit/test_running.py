"""A run with early exit answers as each image alone does, and computes nothing for images that have left."""

import math
from collections.abc import Mapping

import pytest
import torch
from conftest import ported
from torch import Tensor

from analyses.early_exit import (
    ClassSpaceReadout,
    ExitRule,
    ProbeReadout,
    Readout,
    early_exit_logits,
    fit_exit_probes,
    margin,
)
from analyses.linear_probe import fit_ridge_probe
from analyses.tuned_lens import TunedLens, fit_tuned_lens
from hooked_vit import HookedViT

KINDS = ["cls", "gap_registers_layerscale", "distilled", "rotary"]


@pytest.fixture(scope="module")
def items() -> list[tuple[Tensor, int]]:
    generator = torch.Generator().manual_seed(6)
    return [(torch.randn(3, 32, 24, generator=generator), index % 7) for index in range(125)]


def readouts_of(model: HookedViT, items: list[tuple[Tensor, int]]) -> Mapping[str, Readout]:
    return {
        "class_space": ClassSpaceReadout(),
        "tuned_lens": ClassSpaceReadout(fit_tuned_lens(model, items, tokens="read")),
        "probe": fit_exit_probes(model, items, batch_size=7),
    }


@torch.no_grad()
def alone(model: HookedViT, image: Tensor, rule: ExitRule) -> tuple[Tensor, int]:
    """One image, from a whole run: block after block until it passes."""
    logits, cache = model.run_with_cache(image[None], names_filter="resid_post")
    streak, top = 0, -1
    for layer in range(model.cfg.n_layers - 1):
        answer = rule.readout.class_logits(model, cache["resid_post", layer], layer)
        now = int(answer.argmax())
        streak, top = (streak + 1 if now == top else 1), now
        if (float(margin(answer)) if rule.measure == "margin" else streak) >= rule.threshold:
            return answer[0], layer
    return logits[0], model.cfg.n_layers - 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["class_space", "tuned_lens", "probe"])
def test_it_equals_the_loop_over_images(kind: str, name: str, items: list[tuple[Tensor, int]]) -> None:
    model = ported(kind)
    readout = readouts_of(model, items)[name]
    images = torch.stack([image for image, _ in items[:9]])
    _, cache = model.run_with_cache(images, names_filter="resid_post")
    margins = margin(readout.class_logits(model, cache["resid_post", 1], 1)).sort().values
    middle = float(margins[3:5].mean())  # between two images: a batch and an image alone differ in the last bit
    depths = set()
    for rule in (
        ExitRule(0.0, readout=readout),
        ExitRule(middle, readout=readout),
        ExitRule(math.inf, readout=readout),
        ExitRule(2, "agreement", readout),
    ):
        run = early_exit_logits(model, images, rule)
        for index, image in enumerate(images):
            logits, layer = alone(model, image, rule)
            assert run.layer[index] == layer
            torch.testing.assert_close(run.class_logits[index], logits, rtol=1e-4, atol=1e-5)
        assert run.mean_depth == pytest.approx(float(run.layer.double().mean()) + 1)
        depths.add(run.mean_depth)
    assert len(depths) >= 3


def test_images_that_have_left_are_not_computed_on(items: list[tuple[Tensor, int]]) -> None:
    model, images = ported("cls"), torch.stack([image for image, _ in items])
    _, cache = model.run_with_cache(images, names_filter="resid_post")
    threshold = float(margin(ClassSpaceReadout().class_logits(model, cache["resid_post", 0], 0)).median())
    seen: list[int] = []
    hooks = [(f"blocks.{layer}.hook_resid_pre", lambda x, hook: seen.append(len(x))) for layer in range(3)]
    with model.hooks(fwd_hooks=hooks):
        run = early_exit_logits(model, images, ExitRule(threshold))
    assert seen == [int((run.layer >= layer).sum()) for layer in range(3)]
    assert seen[1] < seen[0]


@pytest.mark.parametrize("name", ["class_space", "tuned_lens", "probe"])
def test_it_runs_under_autocast(name: str, items: list[tuple[Tensor, int]]) -> None:
    model, images = ported("cls"), torch.stack([image for image, _ in items])
    readout = readouts_of(model, items)[name]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, cache = model.run_with_cache(images, names_filter="resid_post")
        first = readout.class_logits(model, cache["resid_post", 0], 0)
        run = early_exit_logits(model, images, ExitRule(float(margin(first).median()), readout=readout))
    left = run.layer == 0
    assert 0 < left.sum() < len(images)
    torch.testing.assert_close(run.class_logits[left], first[left].to(run.class_logits))


@torch.no_grad()
def test_probes_are_ridge_regressions_of_what_the_head_reads(items: list[tuple[Tensor, int]]) -> None:
    for kind in ("cls", "gap_registers_layerscale"):
        model = ported(kind)
        probe = fit_exit_probes(model, items, alpha=0.5, batch_size=11).probe
        _, cache = model.run_with_cache(torch.stack([image for image, _ in items]), names_filter="resid_post")
        features = torch.stack([cache["resid_post", layer][:, model.cfg.read_tokens].mean(dim=1) for layer in range(3)])
        expected = fit_ridge_probe(features, torch.tensor([label for _, label in items]), 7, alpha=0.5)
        torch.testing.assert_close(probe.weight, expected.weight, rtol=1e-3, atol=1e-4)


def test_errors(images: Tensor, items: list[tuple[Tensor, int]]) -> None:
    model = ported("cls")
    small = ProbeReadout(fit_exit_probes(model, items).probe[:2])
    with pytest.raises(ValueError, match=r"a probe for each block .* = \(3, 24, 7\), got \(2, 24, 7\)"):
        early_exit_logits(model, images, ExitRule(0.5, readout=small))
    lens = TunedLens.identity(ported("parallel").cfg)
    with pytest.raises(ValueError, match="made for another model"):
        early_exit_logits(model, images, ExitRule(0.5, readout=ClassSpaceReadout(lens)))
    with pytest.raises(ValueError, match="expected at least one image"):
        fit_exit_probes(model, [])
