"""Every hook point of every kind of model works: an edit moves the logits, a gradient flows through it.

There is no exception: noise that differs from token to token and from channel to channel moves every one. (What could
not move the logits: a constant added to all scores of a query or the same vector added to all keys, which the softmax
takes out; a multiple of what a norm reads; a constant over the channels of a stream that LayerNorms read.)
"""

from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch
from conftest import ported
from torch import Tensor

from hooked_vit import HookedViT, HookPoint

# the smallest effect of such noise seen here is 1e-4 of the largest logit; rounding moves it by less than 1e-6
FLOOR = 2e-5


@pytest.fixture(autouse=True)
def shapes_unchecked() -> Iterator[None]:
    """Thousands of forward passes: shapes are enforced in every other test."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def model(kind: str) -> HookedViT:
    """A model of each kind."""
    return ported(kind)


def noise_like(activation: Tensor) -> Tensor:
    """Noise of the activation's own size, the same every time, that keeps a scale positive."""
    noise = torch.randn(activation.shape, generator=torch.Generator().manual_seed(5))
    return noise.abs() if activation.shape[-1] == 1 else noise * (activation.std() + 0.5)


def add_in_place(activation: Tensor, hook: HookPoint) -> None:
    activation += noise_like(activation)


def edit_in_place_and_return(activation: Tensor, hook: HookPoint) -> Tensor:
    activation[:] = activation + noise_like(activation)
    return activation


def edited(model: HookedViT, images: Tensor, name: str, hook: Callable) -> Tensor:
    """The logits with one hook on one point."""
    return model.run_with_hooks(images, fwd_hooks=[(name, hook)]).detach()


def test_an_edit_moves_the_logits_until_the_hook_is_removed(model: HookedViT, images: Tensor) -> None:
    before = model(images).detach()
    for name in model.hook_dict:
        with torch.no_grad():
            moved = edited(model, images, name, lambda activation, hook: activation + noise_like(activation))
        assert (moved - before).abs().max() > FLOOR * before.abs().max(), name
        with torch.enable_grad():
            in_place = edited(model, images, name, add_in_place)
        torch.testing.assert_close(in_place, moved, rtol=1e-4, atol=1e-5, msg=name)
    assert torch.equal(model(images), before), "no edit reached a weight"


@pytest.mark.parametrize("kind", ["inner_norms", "post_norm"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_edit_in_place_works_in_every_grad_mode(kind: str, mode: Callable, images: Tensor) -> None:
    model = ported(kind)
    for name in model.hook_dict:
        expected = edited(model, images, name, lambda activation, hook: activation + noise_like(activation))
        with mode():
            in_place = edited(model, images, name, edit_in_place_and_return)
        torch.testing.assert_close(in_place, expected, rtol=1e-4, atol=1e-5, msg=name)


def test_every_point_passes_its_activation_on(model: HookedViT, images: Tensor) -> None:
    before = model(images).detach()
    fired: dict[str, int] = {}

    def look(activation: Tensor, hook: HookPoint) -> Tensor:
        fired[hook.name] = fired.get(hook.name, 0) + 1
        return activation.clone()

    logits = model.run_with_hooks(images, fwd_hooks=[(lambda name: True, look)])
    assert fired == dict.fromkeys(model.hook_dict, 1), "each point fires once"
    assert (logits - before).abs().max() <= 1e-6 * before.abs().max()
    logits, _ = model.run_with_cache(images, names_filter=model.hook_names())
    assert torch.equal(logits, before), "a cache of everything leaves the logits bitwise"
    assert torch.equal(model(images), before)


def test_a_gradient_flows_through_every_point(model: HookedViT, images: Tensor) -> None:
    def metric(logits: Tensor) -> Tensor:
        return logits[:, 3] - logits[:, 5]

    _, _, gradients = model.run_with_gradients(images, metric, model.hook_names())
    assert set(gradients.keys()) == set(model.hook_dict)
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name
        assert (gradient.flatten(1).abs().amax(1) > 0).all(), name
    hooked: dict[str, Tensor] = {}
    with model.hooks(bwd_hooks=[(lambda name: True, lambda g, hook: hooked.update({hook.name: g.clone()}))]):
        torch.autograd.grad(metric(model(images)).sum(), list(model.parameters()))
    assert set(hooked) == set(model.hook_dict)
    for name, gradient in hooked.items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-3, atol=1e-7, msg=name)


@pytest.mark.parametrize("kind", ["map", "post_norm", "qk_norm", "swiglu_packed"])
def test_a_gradient_edited_at_any_point_is_passed_on(kind: str, images: Tensor) -> None:
    model = ported(kind)
    weight = model.embed.patch.weight

    def gradient(*bwd_hooks: tuple[str, Callable]) -> Tensor:
        with model.hooks(bwd_hooks=list(bwd_hooks)):
            return torch.autograd.grad(model(images)[:, 3].sum(), weight)[0]

    whole = gradient()
    for name in model.hook_dict:
        if name.startswith("hook_pos_embed"):
            continue  # positions do not depend on the image
        if name.startswith(("attn_pool.hook_q", "attn_pool.q_norm")):
            continue  # the pool's query does not depend on the image
        stopped = gradient((name, lambda g, hook: torch.zeros_like(g)))
        assert (stopped - whole).abs().max() > FLOOR * whole.abs().max() / 10, name
    learned = [name for name in model.hook_dict if name.startswith(("hook_pos_embed", "attn_pool.hook_q"))]
    for name in learned:
        torch.testing.assert_close(gradient((name, lambda g, hook: torch.zeros_like(g))), whole)
