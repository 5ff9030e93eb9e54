"""TransformerLens's HookPoint with checked edits, and whether a hook point is watched or only read."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor
from transformer_lens.hook_points import HookPoint as LensHookPoint
from transformer_lens.hook_points import LensHandle


class HookPoint(LensHookPoint):
    """A named point in the forward pass. What a hook returns must fit what it was given.

    Raises:
        ValueError: From the forward or backward pass, if a hook returns another shape, dtype or device.
        TypeError: If a hook returns something other than a tensor.
    """

    def add_hook(
        self,
        hook: Callable[..., Any],
        dir: Literal["fwd", "bwd"] = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
        alias_names: list[str] | None = None,
    ) -> LensHandle:
        """As TransformerLens's; `hook` is a function `fn(activation, hook)`.

        Raises:
            TypeError: If `hook` cannot be called.
        """
        if not callable(hook):
            raise TypeError(
                f"a hook on '{self.name}' must be a function fn(activation, hook), got {type(hook).__name__}"
            )
        checked: Any = partial(self._checked, hook, dir)
        handle = super().add_hook(checked, dir, is_permanent, level, prepend, alias_names)
        handle.user_hook = hook
        return handle

    def _checked(self, user_hook: Callable[..., Any], dir: str, activation: Tensor, hook: Any) -> Any:
        """What a user's hook returns, if it fits; `hook` is TransformerLens's keyword for the hook point."""
        result = user_hook(activation, hook=hook)
        if result is None:
            return None
        # a backward hook may return its gradient in a tuple of length one, as in PyTorch
        in_tuple = dir == "bwd" and isinstance(result, tuple) and len(result) == 1
        edited = result[0] if in_tuple else result
        if not isinstance(edited, Tensor):
            raise TypeError(
                f"the hook on '{self.name}' returned {type(edited).__name__}: return a tensor of shape "
                f"{tuple(activation.shape)}, or None to leave the activation unchanged"
            )
        if edited.shape != activation.shape:
            raise ValueError(
                f"the hook on '{self.name}' returned shape {tuple(edited.shape)}, expected "
                f"{tuple(activation.shape)}: an edited activation keeps its shape"
            )
        if edited.dtype != activation.dtype or edited.device != activation.device:
            raise ValueError(
                f"the hook on '{self.name}' returned {edited.dtype} on {edited.device}, expected "
                f"{activation.dtype} on {activation.device}: convert it with `.to(activation)`"
            )
        return result


def is_watched(point: LensHookPoint) -> bool:
    """Whether a hook is attached, in either direction, by TransformerLens or plain PyTorch."""
    return bool(point._forward_hooks or point._backward_hooks or point._forward_pre_hooks or point._backward_pre_hooks)


def unbind(x: Tensor, dim: int, *points: LensHookPoint) -> tuple[Tensor, ...]:
    """The slices of `x` along `dim`, each of which passes one of `points` next.

    Autograd forbids edits in place of the results of `Tensor.unbind`. So if a hook is attached, the slices are
    selected one by one, with a slower backward pass.
    """
    if any(is_watched(point) for point in points):
        return tuple(x.select(dim, index) for index in range(x.shape[dim]))
    return x.unbind(dim)


def is_only_read(point: LensHookPoint) -> bool:
    """Whether all hooks of a point, if any, are known to leave its activation unchanged (they have `only_reads`).

    Then a fused computation may bypass the point; otherwise what the hooks return must be used, and gradients must
    flow through it.
    """
    followed = point._backward_hooks or point._forward_pre_hooks or point._backward_pre_hooks
    # a hook registered with PyTorch alone may do anything
    if followed or len(point._forward_hooks) != len(point.fwd_hooks):
        return False
    return all(getattr(handle.user_hook, "only_reads", False) for handle in point.fwd_hooks)
