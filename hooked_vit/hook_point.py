"""TransformerLens's HookPoint with its edits checked, and the two questions components ask of one."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint as LensHookPoint
from transformer_lens.hook_points import LensHandle


class HookPoint(LensHookPoint):
    """A named place in the forward pass. What a hook returns must fit in the place of what it was given.

    Raises:
        ValueError: From the forward or backward pass, if a hook returns another shape, dtype or device.
        TypeError: If it returns something that is not a tensor.
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
        checked = self._checked(hook)
        handle = super().add_hook(checked, dir, is_permanent, level, prepend, alias_names)
        handle.user_hook = hook
        return handle

    def _checked(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def checked(activation: Tensor, hook: Any) -> Any:  # `hook` is TransformerLens's keyword for the point
            result = call(activation, hook=hook)
            if result is None:
                return None
            edited = result[0] if isinstance(result, tuple) and len(result) == 1 else result
            if not isinstance(edited, Tensor):
                raise TypeError(
                    f"the hook on '{self.name}' returned {type(edited).__name__}: return a tensor of shape "
                    f"{tuple(activation.shape)}, or None to leave the activation as it is"
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

        call = hook
        return wraps(hook)(checked)


def is_watched(point: LensHookPoint) -> bool:
    """Whether anybody looks at this point: a hook of either direction, TransformerLens's or plain PyTorch's."""
    return bool(point._forward_hooks or point._backward_hooks or point._forward_pre_hooks or point._backward_pre_hooks)


def observe(point: LensHookPoint, activation: Tensor) -> tuple[Tensor, bool]:
    """Run the hooks of a point beside a fused computation; tell whether its result must be computed anew.

    It must where a hook edited the activation (by its return or in place), and where gradients are recorded,
    since they have to flow through the point.
    """
    # inference tensors keep no version, so an edit in place cannot be told there
    version = None if activation.is_inference() else activation._version
    result = point(activation)
    untouched = result is activation and version is not None and activation._version == version
    return result, torch.is_grad_enabled() or not untouched
