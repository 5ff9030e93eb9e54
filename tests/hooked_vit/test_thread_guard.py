"""Hooks of one thread never reach the run of another."""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from conftest import make_timm
from torch import Tensor

from hooked_vit import HookedViT


@pytest.fixture
def model() -> HookedViT:
    return HookedViT.from_timm(make_timm("cls"))


def in_a_thread(work: Callable[[], object]) -> list[BaseException]:
    """The errors of `work` in another thread."""
    errors: list[BaseException] = []

    def caught() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=caught)
    thread.start()
    thread.join()
    return errors


def test_another_thread_is_refused_while_hooks_are_on(model: HookedViT, images: Tensor) -> None:
    for work in (lambda: model(images), lambda: model.run_with_cache(images)):
        with model.hooks(fwd_hooks=[("resid_pre", lambda a, hook: 0 * a)]):
            [error] = in_a_thread(work)
        assert isinstance(error, RuntimeError)
        assert "another thread" in str(error)
        assert "copy.deepcopy(model)" in str(error)
        assert in_a_thread(work) == []


def test_hooks_are_refused_while_another_thread_runs(model: HookedViT, images: Tensor) -> None:
    inside, go_on = threading.Event(), threading.Event()
    forward = model.embed.forward

    def slow(*args: object) -> object:
        inside.set()
        assert go_on.wait(60)
        return forward(*args)  # type: ignore[arg-type]

    model.embed.forward = slow  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: model(images))
    thread.start()
    assert inside.wait(60)
    try:
        with pytest.raises(RuntimeError, match="another thread"), model.hooks(fwd_hooks=[("z", lambda a, hook: a)]):
            pass
        assert not any(point.fwd_hooks for point in model.hook_points())
    finally:
        go_on.set()
        thread.join()
    model.embed.forward = forward  # type: ignore[method-assign]
    with model.hooks(fwd_hooks=[("z", lambda a, hook: a)]):
        model(images)


def test_runs_without_hooks_go_on_side_by_side(model: HookedViT, images: Tensor) -> None:
    expected, found = model(images), []
    threads = [threading.Thread(target=lambda: found.append(model(images))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(logits, expected) for logits in found)


def test_copies_are_run_by_threads_of_their_own(model: HookedViT, images: Tensor) -> None:
    shared = model.with_weights(dict(model.named_parameters()))
    with model.hooks(fwd_hooks=[("resid_pre", lambda a, hook: 0 * a)]):
        for other in (copy.deepcopy(model), shared):
            assert in_a_thread(lambda other=other: other.run_with_cache(images)) == []


def test_an_error_inside_lets_the_next_thread_in(model: HookedViT, images: Tensor) -> None:
    with pytest.raises(ZeroDivisionError), model.hooks(fwd_hooks=[("z", lambda a, hook: 1 / 0)]):
        model(images)
    assert in_a_thread(lambda: model.run_with_cache(images)) == []
