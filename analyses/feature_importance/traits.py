"""Traits of explanation methods, kept as attributes of the methods: `needs_pixels` and `class_agnostic`."""

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["with_traits"]

Method = TypeVar("Method", bound=Callable[..., Any])


def with_traits(*, needs_pixels: bool = False, class_agnostic: bool = False) -> Callable[[Method], Method]:
    """Decorate a method with what sets it apart from the others.

    Args:
        needs_pixels: It differentiates with respect to pixels, so the stream's start is not enough.
        class_agnostic: Its map is the same for every class.

    >>> @with_traits(class_agnostic=True)
    ... def mine(model, images, classes, *, start_at_layer=None): ...
    >>> mine.needs_pixels, mine.class_agnostic
    (False, True)
    """

    def mark(method: Method) -> Method:
        vars(method).update(needs_pixels=needs_pixels, class_agnostic=class_agnostic)
        return method

    return mark
