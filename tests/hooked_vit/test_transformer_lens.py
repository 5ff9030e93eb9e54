"""Code written for TransformerLens works here: all kinds of hooks, patching sweeps, class names as tokens."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
import pytest
import torch
from conftest import make_timm, ported
from torch import Tensor
from transformer_lens import ActivationCache, HookedRootModule, patching
from transformer_lens.hook_points import HookPoint as LensHookPoint
from transformer_lens.utilities import get_act_name

from hooked_vit import HookedViT


@pytest.fixture(params=["cls", "gap_registers_layerscale", "post_norm", "swiglu_packed"])
def model(request: pytest.FixtureRequest) -> Iterator[HookedViT]:
    """Some of the kinds."""
    model = ported(request.param)
    yield model
    model.reset_hooks(including_permanent=True)
    assert not model.list_hooks()


@pytest.fixture(params=[torch.no_grad, torch.enable_grad], ids=["no_grad", "with_grad"])
def mode(request: pytest.FixtureRequest) -> Iterator[None]:
    """With and without gradients."""
    with request.param():
        yield


def test_a_model_has_what_its_tools_expect(model: HookedViT, images: Tensor) -> None:
    assert isinstance(model, HookedRootModule)
    assert all(isinstance(point, LensHookPoint) for point in model.hook_dict.values())
    assert isinstance(model.run_with_cache(images)[1], ActivationCache)
    for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "z", "result",
                 "pattern", "attn_scores", "pre", "post"):  # fmt: skip
        assert get_act_name(name, 1) in model.hook_dict
    assert get_act_name("scale", 2, "ln2") in model.hook_dict


# ---------------------------------------------------------------- hooks


def head_ablation_hook(value: Tensor, hook: LensHookPoint, head_index_to_ablate: int) -> Tensor:
    """As in TransformerLens's main demo: an edit in place, through a partial."""
    value[:, :, head_index_to_ablate, :] = 0.0
    return value


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("name", ["v", "z", "q", "k"])
def test_a_head_is_ablated_in_place_through_a_partial(model: HookedViT, images: Tensor, name: str) -> None:
    def without(activation: Tensor, hook: LensHookPoint) -> Tensor:
        keep = torch.tensor([1.0, 1.0, 0.0])
        return activation * keep[:, None]

    point = get_act_name(name, 1)
    found = model.run_with_hooks(images, fwd_hooks=[(point, partial(head_ablation_hook, head_index_to_ablate=2))])
    expected = model.run_with_hooks(images, fwd_hooks=[(point, without)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert (found - model(images)).abs().max() > 1e-6


def test_a_hook_has_a_name_a_layer_and_a_context(model: HookedViT, images: Tensor) -> None:
    met = []

    def note(activation: Tensor, hook: LensHookPoint) -> None:
        met.append((hook.name, hook.layer()))
        hook.ctx["mean"] = activation.mean()

    def read(activation: Tensor, hook: LensHookPoint) -> Tensor:
        return activation - hook.ctx["mean"] + 0 * hook.layer()

    every_pattern = lambda name: name.endswith("hook_pattern") and name.startswith("blocks")  # noqa: E731
    model.run_with_hooks(images, fwd_hooks=[(every_pattern, note)])
    assert met == [(f"blocks.{layer}.attn.hook_pattern", layer) for layer in range(3)]
    moved = model.run_with_hooks(images, fwd_hooks=[(every_pattern, read)], clear_contexts=True)
    assert not torch.equal(moved, model(images))
    assert all(not point.ctx for point in model.hook_points())


def test_permanent_hooks_outlive_the_others(model: HookedViT, images: Tensor) -> None:
    before = model(images)
    permanent, passing = (lambda x, hook: 2 * x), (lambda x, hook: x + 1)
    model.add_perma_hook("blocks.0.hook_mlp_out", permanent)
    with_permanent = model(images)
    model.add_hook("blocks.1.hook_mlp_out", passing)
    listed = model.list_hooks()
    assert {name: [handle.user_hook for handle in handles] for name, handles in listed.items()} == {
        "blocks.0.hook_mlp_out": [permanent], "blocks.1.hook_mlp_out": [passing],
    }  # fmt: skip
    assert list(model.list_hooks(including_permanent=False)) == ["blocks.1.hook_mlp_out"]
    assert list(model.list_hooks("blocks.0.hook_mlp_out", dir="bwd")) == []
    assert not torch.equal(with_permanent, before)
    model.reset_hooks()
    assert torch.equal(model(images), with_permanent)
    model.run_with_cache(images)
    assert torch.equal(model.run_with_hooks(images), with_permanent)
    model.reset_hooks(including_permanent=True)
    assert torch.equal(model(images), before)


def test_backward_hooks_stay_until_they_are_reset(model: HookedViT, images: Tensor) -> None:
    seen: list[Tensor] = []
    name = "blocks.1.hook_resid_mid"
    logits = model.run_with_hooks(
        images, bwd_hooks=[(name, lambda gradient, hook: seen.append(gradient))], reset_hooks_end=False
    )
    torch.autograd.grad(logits[:, 1].sum(), model.embed.patch.weight)
    model.reset_hooks()
    _, _, gradients = model.run_with_gradients(images, lambda logits: logits[:, 1], name)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], gradients[name], rtol=1e-4, atol=1e-6)


def test_caching_hooks_as_in_transformer_lens(model: HookedViT, images: Tensor) -> None:
    cache, fwd, bwd = model.get_caching_hooks(lambda name: "resid_post" in name, incl_bwd=True)
    with model.hooks(fwd_hooks=fwd, bwd_hooks=bwd):
        loss = model(images, return_type="loss", labels=torch.tensor([1, 2]))
        torch.autograd.grad(loss, model.embed.patch.weight)
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
    assert set(cache) == {name + end for name in names for end in ("", "_grad")}
    expected, _, _ = model.get_caching_hooks("pattern", cache={"kept": torch.ones(1)})
    assert list(expected) == ["kept"]


# ---------------------------------------------------------------- patching


@pytest.fixture
def runs(model: HookedViT, images: Tensor) -> tuple[ActivationCache, Tensor]:
    """The cache of a clean run, and the images of a corrupted one."""
    with torch.no_grad():
        _, clean = model.run_with_cache(images)
    return clean, torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(9))


def metric(logits: Tensor) -> Tensor:
    """A number for the batch."""
    return (logits[:, 0] - logits[:, 4]).mean()


def slow_patch(model: HookedViT, corrupted: Tensor, clean: ActivationCache, name: str, where: tuple) -> Tensor:
    """The metric with one part of one activation taken from the clean run."""

    def patch(activation: Tensor, hook: LensHookPoint) -> Tensor:
        patched = activation.clone()
        patched[where] = clean[hook.name][where]
        return patched

    return metric(model.run_with_hooks(corrupted, fwd_hooks=[(name, patch)])).detach()


ALL = slice(None)
HEAD_SWEEPS: dict[str, tuple[Callable, str, Callable]] = {
    "out": (patching.get_act_patch_attn_head_out_all_pos, "z", lambda head: (ALL, ALL, head)),
    "q": (patching.get_act_patch_attn_head_q_all_pos, "q", lambda head: (ALL, ALL, head)),
    "k": (patching.get_act_patch_attn_head_k_all_pos, "k", lambda head: (ALL, ALL, head)),
    "v": (patching.get_act_patch_attn_head_v_all_pos, "v", lambda head: (ALL, ALL, head)),
    "pattern": (patching.get_act_patch_attn_head_pattern_all_pos, "pattern", lambda head: (ALL, head)),
}


@pytest.mark.parametrize("model", ["gap_registers_layerscale", "post_norm"], indirect=True)
@pytest.mark.parametrize("sweep", sorted(HEAD_SWEEPS))
def test_sweeps_over_heads_run_unchanged(model: HookedViT, runs: tuple, sweep: str) -> None:
    (clean, corrupted), (run, name, where) = runs, HEAD_SWEEPS[sweep]
    result = run(model, corrupted, clean, metric)
    expected = torch.tensor(
        [[slow_patch(model, corrupted, clean, get_act_name(name, layer), where(head)) for head in range(3)]
         for layer in range(3)]
    )  # fmt: skip
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)
    assert result.unique().numel() > 1


@pytest.mark.parametrize("model", ["gap_registers_layerscale"], indirect=True)
def test_all_sweeps_over_heads_at_once(model: HookedViT, runs: tuple) -> None:
    clean, corrupted = runs
    with torch.no_grad():
        every = patching.get_act_patch_attn_head_all_pos_every(model, corrupted, clean, metric)
        one_by_one = [
            HEAD_SWEEPS[name][0](model, corrupted, clean, metric) for name in ("out", "q", "k", "v", "pattern")
        ]
    assert torch.equal(every, torch.stack(one_by_one))


POSITION_SWEEPS: dict[str, tuple[Callable, str, list[str], Callable]] = {
    "resid_pre": (patching.get_act_patch_resid_pre, "resid_pre", ["layer", "pos"], lambda pos: (ALL, pos)),
    "resid_mid": (patching.get_act_patch_resid_mid, "resid_mid", ["layer", "pos"], lambda pos: (ALL, pos)),
    "attn_out": (patching.get_act_patch_attn_out, "attn_out", ["layer", "pos"], lambda pos: (ALL, pos)),
    "mlp_out": (patching.get_act_patch_mlp_out, "mlp_out", ["layer", "pos"], lambda pos: (ALL, pos)),
    "head out by position": (patching.get_act_patch_attn_head_out_by_pos, "z", ["layer", "pos", "head"],
                             lambda pos, head: (ALL, pos, head)),
    "head k by position": (patching.get_act_patch_attn_head_k_by_pos, "k", ["layer", "pos", "head"],
                           lambda pos, head: (ALL, pos, head)),
    "pattern by query": (patching.get_act_patch_attn_head_pattern_by_pos, "pattern",
                         ["layer", "head_index", "dest_pos"], lambda head, query: (ALL, head, query)),
    "pattern by query and key": (patching.get_act_patch_attn_head_pattern_dest_src_pos, "pattern",
                                 ["layer", "head_index", "dest_pos", "src_pos"],
                                 lambda head, query, key: (ALL, head, query, key)),
}  # fmt: skip
RANGES = {"layer": [0, 2], "pos": [0, 11], "head": [0, 2], "head_index": [1, 2], "dest_pos": [0, 7], "src_pos": [3]}


@pytest.mark.parametrize("model", ["gap_registers_layerscale", "post_norm"], indirect=True)
@pytest.mark.parametrize("sweep", sorted(POSITION_SWEEPS))
def test_sweeps_over_positions_run_with_their_positions_named(model: HookedViT, runs: tuple, sweep: str) -> None:
    (clean, corrupted), (run, name, axes, where) = runs, POSITION_SWEEPS[sweep]
    index_df = pd.DataFrame(list(itertools.product(*(RANGES[axis] for axis in axes))), columns=axes)
    with torch.no_grad():
        result = run(model, corrupted, clean, metric, index_axis_names=None, index_df=index_df)
        expected = torch.tensor(
            [slow_patch(model, corrupted, clean, get_act_name(name, layer), where(*rest))
             for layer, *rest in index_df.itertuples(index=False)]
        )  # fmt: skip
    assert result.shape == (len(index_df),)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)


def test_every_stream_at_once_with_positions_named(model: HookedViT, runs: tuple) -> None:
    clean, corrupted = runs
    positions = [(0, 3), (2, 0), (1, 11)]
    index_df = pd.DataFrame(positions, columns=["layer", "pos"])
    with torch.no_grad():
        every = patching.get_act_patch_block_every(
            model, corrupted, clean, metric, index_axis_names=None, index_df=index_df
        )
        assert every.shape == (3, 3)
        for row, name in zip(every, ("resid_pre", "attn_out", "mlp_out"), strict=True):
            for found, (layer, pos) in zip(row, positions, strict=True):
                expected = slow_patch(model, corrupted, clean, get_act_name(name, layer), (ALL, pos))
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_custom_sweep_with_one_number_per_image(model: HookedViT, runs: tuple) -> None:
    clean, corrupted = runs

    def scale_one_token(activation: Tensor, index: list[int], clean_activation: Tensor) -> Tensor:
        activation[:, index[1]] = 2 * clean_activation[:, index[1]]
        return activation

    index_df = pd.DataFrame({"layer": [0, 1], "pos": [5, 2]})
    with torch.no_grad():
        result = patching.generic_activation_patch(
            model, corrupted, clean, lambda logits: logits[:, 1], scale_one_token, "resid_pre", index_df=index_df,
            reduce="none", baseline=True,
        )  # fmt: skip
        torch.testing.assert_close(result.baseline, model(corrupted)[:, 1])
        for row, (layer, pos) in zip(result.values, ((0, 5), (1, 2)), strict=True):
            stream = model(corrupted, stop_at_layer=layer)
            stream[:, pos] = 2 * clean["resid_pre", layer][:, pos]
            torch.testing.assert_close(row, model(stream, start_at_layer=layer)[:, 1], rtol=1e-4, atol=1e-6)


def test_a_clean_run_patched_into_itself_is_the_clean_run(model: HookedViT, images: Tensor) -> None:
    with torch.no_grad():
        logits, clean = model.run_with_cache(images)
        for name in ("z", "v", "pattern", "resid_mid", "mlp_out"):
            hooks = [(get_act_name(name, layer), lambda x, hook: clean[hook.name]) for layer in range(3)]
            torch.testing.assert_close(model.run_with_hooks(images, fwd_hooks=hooks), logits, rtol=1e-4, atol=1e-6)


def test_class_names_work_as_tokens(images: Tensor) -> None:
    names = ["cat, tabby", "dog", "fish", "bird", "ant", "bee", "fly"]
    model = HookedViT.from_timm(make_timm("cls"), class_names=names)
    _, cache = model.run_with_cache(images)
    stack = cache.decompose_resid()
    assert torch.equal(cache.logit_attrs(stack, "tabby"), cache.logit_attrs(stack, 0))
