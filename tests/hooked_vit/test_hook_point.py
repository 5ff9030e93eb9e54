"""A hook point accepts edits that fit, refuses those that do not, and reports whether it is watched."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hooked_vit import HookPoint
from hooked_vit.hook_point import is_only_read, is_watched


@pytest.fixture
def point() -> HookPoint:
    """A hook point of the name that a model would give it."""
    point = HookPoint()
    point.name = "blocks.3.attn.hook_q"
    return point


@pytest.fixture
def activation() -> Tensor:
    """Some activation."""
    return torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


def test_what_a_hook_returns_replaces_the_activation(point: HookPoint, activation: Tensor) -> None:
    point.add_hook(lambda x, hook: 2 * x)
    assert torch.equal(point(activation), 2 * activation)


def test_a_hook_that_returns_nothing_leaves_the_activation(point: HookPoint, activation: Tensor) -> None:
    seen = []
    point.add_hook(lambda x, hook: seen.append((x, hook)))
    assert point(activation) is activation
    assert torch.equal(seen[0][0], activation)
    assert seen[0][1] is point
    assert point.layer() == 3


def test_hooks_run_in_order_unless_one_is_prepended(point: HookPoint, activation: Tensor) -> None:
    point.add_hook(lambda x, hook: x + 1)
    point.add_hook(lambda x, hook: x * 3)
    point.add_hook(lambda x, hook: x - 5, prepend=True)
    torch.testing.assert_close(point(activation), (activation - 5 + 1) * 3)


def test_the_handle_has_the_users_function(point: HookPoint) -> None:
    def double(x: Tensor, hook: HookPoint) -> Tensor:
        return 2 * x

    assert point.add_hook(double).user_hook is double
    assert point.fwd_hooks[0].user_hook is double


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda x: x[:1], ValueError, "returned shape (1, 3), expected (2, 3): an edited activation keeps its shape"),
        (lambda x: x.double(), ValueError, "returned torch.float64 on cpu, expected torch.float32 on cpu: convert it "
         "with `.to(activation)`"),
        (lambda x: x.to("meta"), ValueError, "returned torch.float32 on meta, expected torch.float32 on cpu"),
        (lambda x: 0.5, TypeError, "returned float: return a tensor of shape (2, 3), or None to leave the activation"),
        (lambda x: (x,), TypeError, "returned tuple: return a tensor of shape (2, 3)"),
    ],
)  # fmt: skip
def test_an_edit_that_does_not_fit_is_refused(
    point: HookPoint, activation: Tensor, edit: Callable, error: type[Exception], message: str
) -> None:
    point.add_hook(lambda x, hook: edit(x))
    with pytest.raises(error, match=re.escape("the hook on 'blocks.3.attn.hook_q' " + message)):
        point(activation)


def test_a_backward_hook_may_replace_the_gradient(point: HookPoint, activation: Tensor) -> None:
    activation.requires_grad_()
    for edit in (lambda g, hook: 7 * g, lambda g, hook: (7 * g,)):
        point.add_hook(edit, dir="bwd")
        (gradient,) = torch.autograd.grad(point(activation).square().sum(), activation)
        point.remove_hooks("bwd")
        torch.testing.assert_close(gradient, 7 * 2 * activation.detach())


def test_a_backward_hook_whose_gradient_does_not_fit_is_refused(point: HookPoint, activation: Tensor) -> None:
    activation.requires_grad_()
    point.add_hook(lambda g, hook: g[0], dir="bwd")
    with pytest.raises(ValueError, match=re.escape("returned shape (3,), expected (2, 3)")):
        point(activation).sum().backward()


@pytest.mark.parametrize(
    "look",
    [
        lambda point: point.add_hook(lambda x, hook: None).hook,
        lambda point: point.add_hook(lambda x, hook: None, dir="bwd").hook,
        lambda point: point.register_forward_hook(lambda *args: None),
        lambda point: point.register_forward_pre_hook(lambda *args: None),
        lambda point: point.register_full_backward_hook(lambda *args: None),
        lambda point: point.register_full_backward_pre_hook(lambda *args: None),
    ],
)
def test_a_point_is_watched_until_its_hook_is_removed(point: HookPoint, look: Callable) -> None:
    assert not is_watched(point)
    handle = look(point)
    assert is_watched(point)
    handle.remove()
    assert not is_watched(point)


def reader(x: Tensor, hook: HookPoint) -> None:
    """A hook that is known to leave the activation alone."""


reader.only_reads = True  # type: ignore[attr-defined]


def test_a_point_is_only_read_if_all_hooks_only_read(point: HookPoint) -> None:
    assert is_only_read(point), "without hooks, nothing is edited"
    point.add_hook(reader)
    assert is_only_read(point)
    point.add_hook(lambda x, hook: None)
    assert not is_only_read(point), "a hook that may edit"
    point.remove_hooks()
    point.add_hook(reader, is_permanent=True)
    assert is_only_read(point)


@pytest.mark.parametrize(
    "look",
    [
        lambda point: point.add_hook(reader, dir="bwd"),
        lambda point: point.register_forward_hook(reader),
        lambda point: point.register_forward_pre_hook(reader),
        lambda point: point.register_full_backward_pre_hook(reader),
    ],
)
def test_backward_hooks_and_hooks_of_plain_pytorch_are_not_only_reading(point: HookPoint, look: Callable) -> None:
    point.add_hook(reader)
    look(point)
    assert not is_only_read(point)


def test_a_slice_can_be_edited_in_place_with_gradients_on(point: HookPoint) -> None:
    leaf = torch.randn(2, 3, 4, requires_grad=True)
    point.add_hook(lambda x, hook: x.mul_(2))
    first, second, third = (leaf * 1).unbind(1)
    (gradient,) = torch.autograd.grad((point(first) + second - third).sum(), leaf)
    assert torch.equal(gradient, torch.tensor([2.0, 1.0, -1.0])[None, :, None].expand(2, 3, 4))
