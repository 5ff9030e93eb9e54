"""You pay only for what you look at: attention and norms stay fused, and nothing is computed without a request."""

from collections import Counter

import pytest
import torch
from conftest import ported
from torch import Tensor
from torch.nn import functional as F

from hooked_vit import HookedViT
from hooked_vit.components.attention import Attention
from hooked_vit.components.norm import Norm
from hooked_vit.hook_names import ON_DEMAND

STREAMS = ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "embed", "pos_embed"]


@pytest.fixture
def model(kind: str) -> HookedViT:
    """A model of each kind."""
    return ported(kind)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each of the costly functions ran."""
    counts: Counter = Counter()

    def count(owner: object, name: str, label: str) -> None:
        real = getattr(owner, name)

        def counted(*args: object, **kwargs: object) -> object:
            counts[label] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(F, "scaled_dot_product_attention", "attention")
    count(F, "layer_norm", "norm")
    count(F, "rms_norm", "norm")
    count(torch, "native_layer_norm", "norm")
    count(F, "linear", "linear")
    count(Tensor, "softmax", "softmax")
    count(Norm, "scale", "scale")
    count(Norm, "divide", "divide")
    count(Attention, "project_heads", "project_heads")
    count(Attention, "forward_split", "forward_split")
    return counts


def fused(model: HookedViT) -> dict[str, int]:
    """What one forward pass may cost: a fused call for each norm and each attention, and one product for q, k and v,
    unless the original has three."""
    norms = sum(isinstance(module, Norm) for module in model.modules())
    linears = sum(isinstance(module, torch.nn.Linear) for module in model.modules())
    linears += 2 * model.cfg.n_layers * model.cfg.separate_qkv
    return {"attention": 3 + (model.attn_pool is not None), "norm": norms, "linear": linears}


def test_without_hooks_everything_is_fused(model: HookedViT, images: Tensor, calls: Counter) -> None:
    model(images)
    assert calls == fused(model)


@pytest.mark.parametrize("names", [STREAMS, ["q", "k", "v", "z"], ["normalized"], "logits"])
def test_caching_activations_that_exist_anyway_costs_nothing(
    model: HookedViT, images: Tensor, calls: Counter, names: object
) -> None:
    if names is STREAMS and model.cfg.parallel_attn_mlp:
        names = [name for name in STREAMS if name != "resid_mid"]
    model.run_with_cache(images, names_filter=names)
    assert calls == fused(model)


@pytest.mark.parametrize("name", ["resid_post", "attn_out", "z", "mlp_in", "hook_embed"])
def test_edits_elsewhere_leave_attention_and_norms_fused(
    model: HookedViT, images: Tensor, calls: Counter, name: str
) -> None:
    model.run_with_hooks(images, fwd_hooks=[(name, lambda x, hook: 2 * x)])
    if name == "mlp_in" and model.cfg.parallel_attn_mlp:  # its own norm of the edited stream
        calls["norm"] -= model.cfg.n_layers
    assert calls == fused(model)


def test_patterns_and_scales_are_cached_in_addition_to_the_fused_calls(
    model: HookedViT, images: Tensor, calls: Counter
) -> None:
    model.run_with_cache(images, names_filter=lambda name: name.rsplit(".", 1)[-1] not in ON_DEMAND)
    cost, expected = dict(calls), fused(model)
    assert cost.pop("softmax") == expected["attention"]
    assert cost.pop("scale", 0) <= expected["norm"]
    assert cost == expected
    assert not {"divide", "project_heads", "forward_split"} & set(calls)


def test_a_cache_of_everything_computes_patterns_and_neurons_when_they_are_read(
    model: HookedViT, images: Tensor, calls: Counter
) -> None:
    _, cache = model.run_with_cache(images)
    assert {name: count for name, count in calls.items() if name != "scale"} == fused(model)
    _ = cache["pattern", 1], cache["pattern", 1]
    assert calls["softmax"] == 1
    norms = calls["norm"]
    _ = cache["normalized", 1, "ln1" if model.cfg.parallel_attn_mlp else "ln2"]
    assert calls["norm"] == norms + (not model.cfg.post_norm)


def test_an_edit_of_one_pattern_costs_that_layer_its_fused_call(
    model: HookedViT, images: Tensor, calls: Counter
) -> None:
    model.run_with_hooks(images, fwd_hooks=[(("pattern", 1), lambda pattern, hook: pattern * 1)])
    assert calls["attention"] == fused(model)["attention"] - 1
    assert calls["softmax"] == 1
    calls.clear()
    norm = "ln1" if model.cfg.parallel_attn_mlp else "ln2"
    model.run_with_hooks(images, fwd_hooks=[(("scale", 1, norm), lambda scale, hook: scale * 1)])
    assert calls["norm"] == fused(model)["norm"] - 1
    assert (calls["scale"], calls["divide"]) == (1, 1)


def test_on_demand_activations_are_computed_only_if_requested(model: HookedViT, images: Tensor, calls: Counter) -> None:
    model.run_with_cache(images, names_filter=("result", 2))
    assert calls["project_heads"] == 1
    calls.clear()
    model.run_with_hooks(images, fwd_hooks=[(("q_input", 0), lambda x, hook: 2 * x)])
    assert calls["forward_split"] == 1
    assert calls["project_heads"] == 0
    calls.clear()
    model.run_with_hooks(images, fwd_hooks=[(("scale", 0, "ln1"), lambda scale, hook: 2 * scale)])
    assert calls["project_heads"] == calls["forward_split"] == 0


def test_the_profiler_shows_the_fused_kernels(images: Tensor) -> None:
    model = ported("cls")
    with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model.run_with_cache(images, names_filter=["resid_post", "z"])
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["aten::scaled_dot_product_attention"] == 3
    assert counts["aten::native_layer_norm"] == 7
    assert counts["aten::linear"] == 3 * 4 + 1
    assert not {"aten::bmm", "aten::softmax", "aten::var", "aten::rsqrt"} & set(counts)
