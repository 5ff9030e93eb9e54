"""TransformerLens's HookPoint with checked edits, and whether a hook point is watched or only read."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor
from transformer_lens.hook_points import HookPoint as LensHookPoint
from transformer_lens.hook_points import LensHandle

from hooked_vit.activations import Recipe
from hooked_vit.token_layout import KeptTokens


class RunningTokens:
    """Which tokens the images of a run have, while its blocks run; all hook points of a model share one.

    Attributes:
        kept: In a run with a `token_mask` or with sequences of patches, of which some tokens can be padding; `None` in
            other runs, and between runs.
    """

    kept: KeptTokens | None = None


class HookPoint(LensHookPoint):
    """A named point in the forward pass. What a hook returns must fit what it was given.

    A hook may edit its activation in place: it is called with a copy, unless it carries `only_reads` or
    `leaves_storage`, as caching hooks do, which promise not to write into the tensor that they are given.

    Raises:
        ValueError: From the forward or backward pass, if a hook returns another shape, dtype or device.
        TypeError: If a hook returns something other than a tensor.
    """

    tokens = RunningTokens()  # of the model, where it is part of one
    live = False  # whether it runs without a hook, too: see `Running.set_live_hook_points`

    def forward(self, x: Tensor) -> Tensor:
        """The activation itself; a copy while a plain PyTorch hook is on, which may edit it in place."""
        return x.clone() if len(self._forward_hooks) != len(self.fwd_hooks) else x

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

    def offer(
        self, compute: Callable[..., Tensor], *reads: Tensor | None, weights: Sequence[Tensor | None] = ()
    ) -> bool:
        """Give caches the way to compute the activation again, in its place; see `Recipe` for the arguments.

        Returns:
            Whether all hooks on the point took it. If not, call the point with the activation, as for any other.

        >>> point, x = HookPoint(), torch.zeros(2)
        >>> x if point.offer(torch.exp, x) else point(x.exp())
        tensor([1., 1.])
        """
        if len(self._forward_hooks) == 0 or not is_only_read(self):
            return False
        hooks: list[Any] = [handle.user_hook for handle in self.fwd_hooks]
        if not all(getattr(hook, "takes_recipes", False) for hook in hooks):
            return False
        recipe: Any = Recipe(str(self.name), compute, reads, weights)
        for hook in hooks:
            hook(recipe, hook=self)
        return True

    def _checked(self, user_hook: Callable[..., Any], dir: str, activation: Tensor, hook: Any) -> Any:
        """What a user's hook returns, if it fits; `hook` is TransformerLens's keyword for the point."""
        if not getattr(user_hook, "leaves_storage", False):
            return self._fitting(self._on_a_copy(user_hook, activation, hook), dir, activation)
        return self._fitting(user_hook(activation, hook=hook), dir, activation)

    def _on_a_copy(self, user_hook: Callable[..., Any], activation: Tensor, hook: Any) -> Any:
        """Call the hook with a copy: neighbouring points share storage, and autograd needs some activations intact."""
        copy = activation.clone()
        result = user_hook(copy, hook=hook)
        if result is not None:
            return result
        # the original goes on where the hook cannot have edited the copy, nor hold it for its gradient
        untouched = not copy.requires_grad and not copy.is_inference() and copy._version == 0
        return None if untouched else copy

    def _fitting(self, result: Any, dir: str, activation: Tensor) -> Any:
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
    """Whether the point runs: it is live, or has a hook of either direction, TransformerLens's or plain PyTorch's."""
    return len(point._forward_hooks) > 0 or _is_followed(point)


def is_only_read(point: LensHookPoint) -> bool:
    """Whether all hooks of a point, if any, are known to leave its activation unchanged (they carry `only_reads`).

    Then a fused computation may run besides the point; otherwise what the hooks return must be followed, and
    gradients must flow through it.
    """
    # a hook that PyTorch knows and TransformerLens does not may do anything
    if _is_followed(point) or len(point._forward_hooks) != len(point.fwd_hooks):
        return False
    return all(getattr(handle.user_hook, "only_reads", False) for handle in point.fwd_hooks)


def _is_followed(point: LensHookPoint) -> bool:
    # numbers of hooks, not their truth: on these torch.compile sets guards, so that later hooks are seen
    n_hooks = len(point._backward_hooks) + len(point._forward_pre_hooks) + len(point._backward_pre_hooks)
    return n_hooks > 0 or getattr(point, "live", False)
