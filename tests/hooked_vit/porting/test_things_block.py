"""ParallelThingsBlock, ported: equal to timm's to the bit, each sub-layer readable, and joined by folding."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from built_models import switch_fused_off
from conftest import make_timm
from timm import layers
from torch import Tensor, nn

from analyses.attribution import logit_attribution
from analyses.circuits.attribution import edge_attribution
from analyses.circuits.graph import circuit_graph
from analyses.feature_importance import feature_importance
from analyses.feature_importance.attention_maps import attention_rollout, raw_attention
from analyses.feature_importance.gradient_maps import gradient_attention, relevance
from analyses.pages.explorer.run import explored_run
from analyses.patching import activation_patching, logit_difference, path_patching
from analyses.perturbation.attention import self_only
from analyses.value_vectors import class_value_agreement, value_vectors
from hooked_vit import HookedViT
from hooked_vit.covered_models import describe_architecture, why_not_covered
from hooked_vit.hook_axes import hook_axes
from hooked_vit.initialisation import freshly_initialised
from hooked_vit.interventions.replacing import freeze_norms, freeze_patterns, zero_ablate
from hooked_vit.resuming import resumable, resume

MODELS: dict[str, dict[str, Any]] = {
    "plain": {"reg_tokens": 1},
    "layer_scale": {"init_values": 0.3, "num_heads": 2},
    "no_biases": {"qkv_bias": False, "proj_bias": False, "class_token": False, "global_pool": "avg",
                  "norm_layer": "rmsnorm"},
    "norms_inside": {"qk_norm": True, "scale_attn_norm": True, "scale_mlp_norm": True, "init_values": 0.2},
    "three": {"num_parallel": 3},
}  # fmt: skip
JOINABLE = [name for name in MODELS if name != "norms_inside"]
METRIC = logit_difference(1, 2)


def make(name: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Any:
    """A perturbed small timm model."""
    from timm.models import vision_transformer

    arguments = {**MODELS[name], **changes}
    block = partial(vision_transformer.ParallelThingsBlock, num_parallel=arguments.pop("num_parallel", 2))
    monkeypatch.setattr(vision_transformer, "Made", block, raising=False)
    return make_timm("cls", block_fn="Made", **arguments)


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    """Each model in turn."""
    return request.param


def test_it_is_exact(name: str, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(name, monkeypatch)
    model = HookedViT.from_timm(module)
    assert model.verify(module, images).relative <= 1e-6
    switch_fused_off(model, module)
    assert model.verify(module, images).bitwise
    assert set(model.verify(module, images).stages.values()) == {0.0}


def test_each_sublayer_writes_what_timms_does(name: str, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(name, monkeypatch)
    model, found = HookedViT.from_timm(module), {}
    for part in ("attns", "ffns"):
        for index, branch in enumerate(getattr(module.blocks[1], part)):
            point = f"{'attns' if part == 'attns' else 'mlps'}.{index}"
            branch.register_forward_hook(lambda branch, args, out, point=point: found.update({point: out}))
    module(images)
    _, cache = model.run_with_cache(images)
    assert len(found) == 2 * model.cfg.n_parallel
    for point, written in found.items():
        torch.testing.assert_close(cache[f"blocks.1.{point}.hook_out"], written, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["layer_scale", "norms_inside"])
@torch.no_grad()
def test_the_stream_is_the_sum_and_every_point_moves_the_logits(
    name: str, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HookedViT.from_timm(make(name, monkeypatch, depth=2))
    logits, cache = model.run_with_cache(images, names_filter=lambda point: True)
    total = cache["hook_tokens"]
    for layer in range(2):
        for part, mid, out in (("attns", "resid_mid", "attn_out"), ("mlps", "resid_post", "mlp_out")):
            written = [cache[f"blocks.{layer}.{part}.{index}.hook_out"] for index in range(model.cfg.n_parallel)]
            assert torch.equal(cache[out, layer], torch.stack(written).sum(0))
            total = total + cache[out, layer]
            assert torch.equal(total, cache[mid, layer])
        for index, attn in enumerate(model.blocks[layer].attns):
            point = f"blocks.{layer}.attns.{index}"
            bias = attn.b_O if attn.ls is None else attn.b_O * attn.ls
            results = cache[f"{point}.hook_result"].sum(-2) + bias
            torch.testing.assert_close(results, cache[f"{point}.hook_out"], rtol=1e-5, atol=1e-6)
    for point, activation in cache.items():
        assert len(hook_axes(point, model.cfg)) == activation.ndim, point
        generator = torch.Generator().manual_seed(5)
        edited = model.run_with_hooks(
            images,
            fwd_hooks=[(point, lambda x, hook: x * (1 + torch.rand(x.shape, generator=generator)))],  # noqa: B023
        )
        assert (edited - logits).abs().max() > 1e-6, point


def test_a_cache_of_everything_holds_what_hooks_see(name: str, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = HookedViT.from_timm(make(name, monkeypatch)), {}
    _, cache = model.run_with_cache(images)
    points = [(point, lambda x, hook: seen.update({hook.name: x.clone()})) for point in cache]
    model.run_with_hooks(images, fwd_hooks=points)
    assert seen.keys() == set(cache)
    for point, activation in cache.items():
        torch.testing.assert_close(activation, seen[point], rtol=1e-4, atol=1e-5, msg=point)


def test_axes_of_its_hook_points(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = HookedViT.from_timm(make("norms_inside", monkeypatch)).cfg
    axes = {
        "attns.1.hook_z": ("batch", "token", "head", "d_head"),
        "attns.1.hook_pattern": ("batch", "head", "query", "key"),
        "attns.1.hook_out": ("batch", "token", "d_model"), "mlps.0.hook_out": ("batch", "token", "d_model"),
        "mlps.0.hook_post": ("batch", "token", "neuron"),
        "attns.0.ln.hook_normalized": ("batch", "token", "d_head_all"),
        "mlps.0.ln_in.hook_normalized": ("batch", "token", "d_model"),
    }  # fmt: skip
    assert {point: hook_axes(f"blocks.2.{point}", cfg) for point in axes} == axes


def test_short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HookedViT.from_timm(make("plain", monkeypatch))
    assert model.hook_names("attn_out") == [f"blocks.{layer}.hook_attn_out" for layer in range(3)]
    assert model.hook_names(("mlp_out", -1)) == ["blocks.2.hook_mlp_out"]
    assert model.hook_names("pattern")[:2] == ["blocks.0.attns.0.hook_pattern", "blocks.0.attns.1.hook_pattern"]
    model.hook_names("blocks.1.mlps.1.ln_in.hook_scale")


def test_every_tensor_is_carried_over_and_weights_can_be_fresh(
    name: str, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make(name, monkeypatch)
    model = HookedViT.from_timm(module)
    expected = sum(tensor.numel() for tensor in module.state_dict().values())
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == expected
    fresh = freshly_initialised(model, seed=0, layer_scale=0.25)
    assert fresh(images).isfinite().all()
    for part in (*fresh.blocks[1].attns, *fresh.blocks[1].mlps):
        assert part.ls is None or (part.ls == 0.25).all()


@pytest.mark.parametrize("name", JOINABLE)
@torch.no_grad()
def test_folding_joins_the_sublayers_of_a_block(name: str, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = HookedViT.from_timm(make(name, monkeypatch))
    one, n_parallel, n_heads = model.fold_layer_norm(), model.cfg.n_parallel, model.cfg.n_heads
    assert (one.cfg.n_parallel, one.cfg.n_heads, one.cfg.d_head) == (1, n_parallel * n_heads, model.cfg.d_head)
    everything: dict[str, Any] = {"names_filter": lambda point: True}
    (logits, cache), (one_logits, one_cache) = (m.run_with_cache(images, **everything) for m in (model, one))
    torch.testing.assert_close(one_logits, logits, rtol=1e-5, atol=1e-5)
    for layer in range(3):
        for short in ("attn_out", "resid_mid", "mlp_out", "resid_post"):
            torch.testing.assert_close(one_cache[short, layer], cache[short, layer], rtol=1e-5, atol=1e-5)
        for short, part, axis in (
            ("pattern", "attns", 1),
            ("z", "attns", 2),
            ("result", "attns", 2),
            ("post", "mlps", 2),
        ):
            each = [cache[f"blocks.{layer}.{part}.{index}.hook_{short}"] for index in range(n_parallel)]
            torch.testing.assert_close(one_cache[short, layer], torch.cat(each, dim=axis), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.accumulated_bias(3), model.accumulated_bias(3), rtol=1e-5, atol=1e-6)


def test_folding_keeps_what_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HookedViT.from_timm(make("layer_scale", monkeypatch))
    model.blocks[1].requires_grad_(False)
    one = model.fold_layer_norm()
    frozen = {name.split(".")[1] for name, weight in one.named_parameters() if not weight.requires_grad}
    assert frozen == {"1"}


def test_norms_inside_cannot_be_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HookedViT.from_timm(make("norms_inside", monkeypatch))
    with pytest.raises(ValueError, match=r"norms of its own inside .of queries and keys, heads, neurons., so they"):
        model.fold_layer_norm()


def cached(model: HookedViT, images: Tensor) -> Any:
    """Every activation."""
    return model.run_with_cache(images, names_filter=lambda point: True)[1]


OF_HEADS_OR_NEURONS: dict[str, Callable[[HookedViT, Tensor], Any]] = {
    "W_Q": lambda model, x: model.W_Q,
    "W_out": lambda model, x: model.W_out,
    "b_O": lambda model, x: model.b_O,
    "OV": lambda model, x: model.OV,
    "attn": lambda model, x: model.blocks[1].attn.W_K,
    "ln2": lambda model, x: model.blocks[1].ln2.weight,
    "hook_names": lambda model, x: model.hook_names(("z", 1)),
    "ablation": lambda model, x: zero_ablate(model, ("post", 1), neurons=[3]),
    "freeze_norms": lambda model, x: freeze_norms(model, cached(model, x)),
    "freeze_patterns": lambda model, x: freeze_patterns(model, cached(model, x)),
    "head_results": lambda model, x: cached(model, x).stack_head_results(),
    "full_decomposition": lambda model, x: cached(model, x).get_full_resid_decomposition(),
    "norm_of_a_block": lambda model, x: cached(model, x).accumulated_resid(layer=1, apply_ln=True),
    "logit_attribution": lambda model, x: logit_attribution(model, cached(model, x), torch.tensor([1, 2])),
    "feature_importance": lambda model, x: feature_importance(model, x, torch.tensor([1, 2])),
    "raw_attention": lambda model, x: raw_attention(model, x, torch.tensor([1, 2])),
    "rollout": lambda model, x: attention_rollout(model, x, torch.tensor([1, 2])),
    "relevance": lambda model, x: relevance(model, x, torch.tensor([1, 2])),
    "gradient_attention": lambda model, x: gradient_attention(model, x, torch.tensor([1, 2])),
    "self_only": lambda model, x: self_only(model),
    "patching_of_heads": lambda model, x: activation_patching(model, x[:1], x[1:], METRIC, "z"),
    "path_patching": lambda model, x: path_patching(model, x[:1], x[1:], METRIC, [("logits",)]),
    "edge_attribution": lambda model, x: edge_attribution(model, x[:1], x[1:], METRIC),
    "circuit_graph": lambda model, x: circuit_graph(model),
    "value_vectors": lambda model, x: value_vectors(model, 1, "mlp"),
    "class_value_agreement": lambda model, x: class_value_agreement(model),
    "explorer": lambda model, x: explored_run(model, x[:1]),
}


@pytest.mark.parametrize("call", OF_HEADS_OR_NEURONS.values(), ids=OF_HEADS_OR_NEURONS)
def test_what_reads_heads_or_neurons_is_refused_until_they_are_joined(
    call: Callable[[HookedViT, Tensor], Any], images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HookedViT.from_timm(make("layer_scale", monkeypatch))
    with pytest.raises(ValueError, match=r"a block of this model has 2 attentions .*`model.fold_layer_norm\(\)`"):
        call(model, images)
    call(model.fold_layer_norm(), images)


def test_a_cache_says_why_it_lacks_a_name(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cache = HookedViT.from_timm(make("plain", monkeypatch)).run_with_cache(images)
    with pytest.raises(KeyError, match="no 'attn': a block of this model has 2 attentions"):
        _ = cache["pattern", 1]


@torch.no_grad()
def test_the_stream_is_decomposed_and_patched_as_in_any_model(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = HookedViT.from_timm(make("layer_scale", monkeypatch))
    logits, cache = model.run_with_cache(images)
    torch.testing.assert_close(cache.decompose_resid().sum(0), cache["resid_post", -1], rtol=1e-5, atol=1e-6)
    context = {short: cache[short, 1] for short in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")}
    assert set(resumable(model.cfg)) == set(context)
    for stream, value in context.items():
        torch.testing.assert_close(resume(model, stream, 1, value, context), logits, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no 'hook_z': a block of this model has 2 attentions"):
        resume(model, "z", 1, logits, {})
    one = model.fold_layer_norm()
    for stream in ("attn_out", "mlp_out"):
        found, expected = (activation_patching(m, images[:1], images[1:], METRIC, stream) for m in (model, one))
        torch.testing.assert_close(found.effect, expected.effect, rtol=1e-3, atol=1e-4)


def test_entrypoints_are_covered() -> None:
    assert why_not_covered("vit_base_patch16_18x2_224") is None
    row = describe_architecture("vit_small_patch16_18x2_224")
    assert (row["n_layers"], row["n_heads"], row["d_mlp"]) == (18, 6, 1536)


class Doubled(nn.Linear):
    """A linear layer that computes more than its weight shows."""

    def forward(self, input: Tensor) -> Tensor:
        """Twice the product."""
        return 2 * super().forward(input)


def changed(part: str, new: nn.Module) -> Callable[[Any], None]:
    """Put another module in the place of one of block 1, or add one."""

    def change(module: Any) -> None:
        owner, _, name = part.rpartition(".")
        setattr(module.blocks[1].get_submodule(owner), name, new)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("attns.1.attn.qkv", Doubled(24, 72)), r"Doubled as 'blocks.1.attns.1.attn.qkv'"),
        (changed("ffns.0.mlp.fc1", Doubled(24, 60)), r"Doubled as 'blocks.1.ffns.0.mlp.fc1'"),
        (changed("attns.0.more", nn.Linear(24, 24)), "a branch of norm, attn, ls, drop_path, more in pair 0 of"),
        (changed("attns.1.attn.gate", nn.Linear(24, 24)), "side by side that are not plain ones, pair 1 of block 1"),
        (changed("ffns.1.mlp", layers.SwiGLU(24, 60)), "several MLPs side by side that are gated, pair 1 of block 1"),
        (changed("ffns.1.mlp.act", nn.ReLU()), "pairs of attention and MLP of different kinds in block 1"),
        (changed("attns.1.ls", layers.LayerScale(24)), "LayerScale on only one sub-layer in pair 1 of block 1"),
        (lambda module: module.blocks[1].ffns.append(module.blocks[1].ffns[0]), "2 attentions and 3 MLPs in block 1"),
        (lambda module: module.blocks[1].attns[0].attn.__setattr__("scale", 1.0), "the scale 1.0 of the attention"),
    ],
)  # fmt: skip
def test_what_is_not_covered_is_named(change: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make("plain", monkeypatch)
    change(module)
    with pytest.raises(ValueError, match=message):
        HookedViT.from_timm(module)


@pytest.mark.parametrize("part", ["attns", "ffns"])
def test_exchanged_norms_are_found_by_verify(part: str, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = make("plain", monkeypatch)
    model = HookedViT.from_timm(wrong)
    first, second = getattr(wrong.blocks[1], part)
    first.norm, second.norm = second.norm, first.norm
    found = model.verify(wrong, images)
    assert found.relative > 1e-3
    assert found.first_difference == "blocks.1"
