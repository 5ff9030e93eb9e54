"""Attribution patching against finite differences and exact patching, and its completeness."""

import pytest
import torch
from conftest import make_timm, ported
from torch import Tensor

from analyses.patching.activation import activation_patching
from analyses.patching.first_order import attribution_patching
from analyses.patching.metrics import class_rank
from analyses.patching.result import agreement
from hooked_vit import HookedViT
from hooked_vit.interventions import edit

CLEAN, CORRUPT = torch.randn(2, 2, 3, 32, 24, generator=torch.Generator().manual_seed(4))
STREAMS = ("resid_pre", "resid_mid", "attn_out", "z", "k", "pattern", "post")


def metric(logits: Tensor) -> Tensor:
    return (logits[:, 0] - logits[:, 4]).mean()


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("kind", ["cls", "post_norm", "inner_norms", "swiglu_packed", "distilled"])
def test_matches_a_small_step_towards_the_other_run(kind: str, stream: str) -> None:
    model = HookedViT.from_timm(make_timm(kind).double())
    clean, corrupt = CLEAN.double(), CORRUPT.double()
    some = {"neurons": [2, 5]} if stream == "post" else {}
    result = attribution_patching(model, clean, corrupt, metric, stream, **some)
    with torch.no_grad():
        _, source = model.run_with_cache(clean)
        components = {"z": {"heads": 1}, "k": {"heads": 1}, "pattern": {"heads": 1}, "post": {"neurons": 5}}
        where = components.get(stream, {"tokens": 3})
        at = {"head": 1} if "heads" in where else {"neuron": 5} if "neurons" in where else {"token": 3}
        for layer in (0, 2):
            step = 1e-5
            hooks = edit(model, (stream, layer), lambda x, name: x + step * (source[name] - x), **where)  # noqa: B023
            expected = (metric(model.run_with_hooks(corrupt, fwd_hooks=hooks)) - metric(model(corrupt))) / step
            torch.testing.assert_close(result.effect[result.index(layer=layer, **at)], expected, rtol=1e-3, atol=1e-7)


def test_integrated_gradients_sum_to_the_whole_effect(kind: str) -> None:
    model = ported(kind)
    exact = activation_patching(model, CLEAN, CORRUPT, metric)
    integrated = attribution_patching(model, CLEAN, CORRUPT, metric, steps=64)
    whole = exact.source - exact.base
    torch.testing.assert_close(integrated.effect.sum(1), whole.expand(3), rtol=5e-2, atol=2e-3)
    if kind != "rotary":  # too far from linear: its norms see values near zero
        assert agreement(exact, integrated).pearson > 0.8


def test_groups_are_sums_over_their_tokens() -> None:
    model = ported("cls")
    mask = torch.rand(2, 13, generator=torch.Generator().manual_seed(0)) < 0.5
    groups = {"object": mask, "context": ~mask, "both": "any"}
    for stream in ("resid_pre", "z"):
        result = attribution_patching(model, CLEAN, CORRUPT, metric, stream, groups=groups)
        parts = result.effect
        torch.testing.assert_close(parts[..., 0] + parts[..., 1], parts[..., 2])


def test_little_memory_does_not_change_the_numbers() -> None:
    model = ported("gap_registers_layerscale")
    whole = attribution_patching(model, CLEAN, CORRUPT, metric, "z", steps=5)
    pieces = attribution_patching(model, CLEAN, CORRUPT, metric, "z", steps=5, memory_limit=1e5)
    torch.testing.assert_close(pieces.values, whole.values, rtol=1e-4, atol=1e-6)


def test_one_number_per_image() -> None:
    model = ported("cls")

    def each(logits: Tensor) -> Tensor:
        return logits[:, 0] - logits[:, 4]

    for steps in (0, 3):
        kept = attribution_patching(model, CLEAN, CORRUPT, each, "z", steps=steps, per_image=True)
        mean = attribution_patching(model, CLEAN, CORRUPT, metric, "z", steps=steps)
        torch.testing.assert_close(kept.effect.mean(-1), mean.effect, rtol=1e-4, atol=1e-6)


def test_the_same_image_has_no_effect_and_leaves_no_gradient_or_hook() -> None:
    model = ported("cls")
    result = attribution_patching(model, CLEAN, CLEAN, metric, "z", steps=2)
    assert result.effect.abs().max() == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.list_hooks()


@pytest.mark.usefixtures("bad_input")
def test_errors() -> None:
    model = ported("cls")
    with pytest.raises(ValueError, match="metric returned a constant"):
        attribution_patching(model, CLEAN, CORRUPT, class_rank(0))
    with pytest.raises(ValueError, match="metric returned a constant"):
        attribution_patching(model, CLEAN, CORRUPT, class_rank(0), steps=2)
    with pytest.raises(ValueError, match=r"steps must be 0 .* got -1"):
        attribution_patching(model, CLEAN, CORRUPT, metric, steps=-1)
    with pytest.raises(ValueError, match=r"one number \(a scalar\)"):
        attribution_patching(model, CLEAN, CORRUPT, lambda logits: logits[:, 0])
    with pytest.raises(ValueError, match="a corrupt image for each"):
        attribution_patching(model, CLEAN, CORRUPT[:1], metric)
