"""A hook that edits its activation in place does what one does that returns an edited copy, and nothing else."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import make_timm
from torch import Tensor

from hooked_vit import HookedViT


def edited_copy(a: Tensor, hook: Any) -> Tensor:
    a = a.clone()
    a[:, -1:] *= 0.5
    return a


def in_place(a: Tensor, hook: Any) -> None:
    a[:, -1:] *= 0.5


def edited_names(model: HookedViT) -> list[str]:
    """One block's points, and those outside blocks: every block is the same code."""
    return [name for name in model.hook_dict if not name.startswith(("blocks.0.", "blocks.2."))]


@pytest.fixture
def model(kind: str) -> HookedViT:
    return HookedViT.from_timm(make_timm(kind))


def run(model: HookedViT, images: Tensor, name: str, hook: Callable[..., Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and every activation, the edit being on before the cache's hooks."""
    with model.hooks(fwd_hooks=[(name, hook)]):
        logits, cache = model.run_with_cache(images, names_filter=lambda name: True)
    return logits, dict(cache.items())


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0, equal_nan=True, msg=name)


def test_caches_and_logits_are_those_of_an_edited_copy(model: HookedViT, images: Tensor) -> None:
    for name in edited_names(model):
        logits, cache = run(model, images, name, in_place)
        expected_logits, expected = run(model, images, name, edited_copy)
        assert torch.equal(logits, expected_logits), name
        same(cache, expected)


def test_a_cache_before_the_edit_holds_the_activation_before(model: HookedViT, images: Tensor) -> None:
    for name in edited_names(model):
        caching, fwd_hooks, _ = model.get_caching_hooks(lambda name: True)
        with model.hooks(fwd_hooks=[*fwd_hooks, (name, in_place)]):
            model(images)
        before, fwd_hooks, _ = model.get_caching_hooks(lambda name: True)
        with model.hooks(fwd_hooks=[*fwd_hooks, (name, edited_copy)]):
            model(images)
        same(caching, before)


def test_gradients_are_those_of_an_edited_copy(model: HookedViT, images: Tensor) -> None:
    for name in edited_names(model):
        results = []
        for hook in (in_place, edited_copy):
            value, cache, gradients = model.run_with_gradients(
                images, lambda logits: logits[:, 2], names_filter=lambda name: True, fwd_hooks=[(name, hook)]
            )
            results.append((value, dict(cache.items()), dict(gradients.items())))
        (value, cache, gradients), (expected_value, expected_cache, expected_gradients) = results
        assert torch.equal(value, expected_value), name
        same(cache, expected_cache)
        same(gradients, expected_gradients)


@pytest.mark.parametrize("kind", ["cls", "post_norm", "gap_registers_layerscale", "map"])
def test_backward_caches_too(kind: str, images: Tensor) -> None:
    model, labels = HookedViT.from_timm(make_timm(kind)), torch.tensor([1, 4])
    for name in edited_names(model):
        found = []
        for hook in (in_place, edited_copy):
            with model.hooks(fwd_hooks=[(name, hook)]):
                loss, cache = model.run_with_cache(images, return_type="loss", labels=labels, incl_bwd=True)
            model.zero_grad()
            found.append({"loss": loss.detach(), **dict(cache.items())})
        same(*found)


def test_gradients_edited_in_place(model: HookedViT, images: Tensor) -> None:
    labels = torch.tensor([1, 4])

    def halved(gradient: Tensor, hook: Any) -> None:
        gradient *= 0.5

    for name in ("blocks.1.hook_resid_pre", "blocks.0.hook_mlp_out"):
        found = []
        for hook in (halved, lambda gradient, hook: gradient * 0.5):
            with model.hooks(bwd_hooks=[(name, hook)]):
                model(images, return_type="loss", labels=labels).backward()
            found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
            model.zero_grad()
        same(*found)


def test_pairs_of_edits(images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("gap_registers_layerscale"))
    names = edited_names(model)
    for pair in itertools.combinations(names, 2):
        found = []
        for hook in (in_place, edited_copy):
            with model.hooks(fwd_hooks=[(name, hook) for name in pair]):
                found.append(model(images))
        assert torch.equal(*found), pair


def test_what_the_caller_holds_is_left_alone(model: HookedViT, images: Tensor) -> None:
    kept = images.clone()
    stream = model(images, stop_at_layer=1)
    for name in edited_names(model):
        with model.hooks(fwd_hooks=[(name, in_place)]):
            model(images)
        assert torch.equal(images, kept), name
    kept = stream.clone()
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", in_place)]):
        model(stream, start_at_layer=1)
    assert torch.equal(stream, kept)


def test_plain_pytorch_hooks_may_edit_in_place(model: HookedViT, images: Tensor) -> None:
    """As nnsight and other tools attach them, past TransformerLens's bookkeeping."""
    for name in edited_names(model):
        point, found = model.hook_dict[name], []
        for edit in (in_place, edited_copy):
            handle = point.register_forward_hook(lambda module, args, output, edit=edit: edit(output, None))
            logits, cache = model.run_with_cache(images)
            handle.remove()
            found.append({"logits": logits, **dict(cache.items())})
        same(*found)


def test_a_hook_that_only_looks_leaves_every_bit(model: HookedViT, images: Tensor) -> None:
    shapes = []
    with torch.no_grad(), model.hooks(fwd_hooks=[("resid_post", lambda a, hook: shapes.append(a.shape))]):
        logits = model(images)
    with torch.no_grad():  # with gradients a bias of the scores takes another kernel
        assert torch.equal(logits, model(images))
    assert len(shapes) == model.cfg.n_layers


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Callable[[], Any], images: Tensor) -> None:
    model = HookedViT.from_timm(make_timm("cls"))
    with mode():
        for name in edited_names(model):
            found = [dict(run(model, images, name, hook)[1]) for hook in (in_place, edited_copy)]
            same(*found)
