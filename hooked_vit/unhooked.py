"""A second set of a model's modules, without hooks, on the same weights."""

from collections import OrderedDict
from typing import Any

from torch import nn

from hooked_vit.hook_point import HookPoint, RunningTokens
from hooked_vit.thread_guard import ThreadGuard

__all__ = ["unhooked"]


def unhooked(model: Any) -> Any:
    """The model as it is now, with the very same parameters and buffers, on which no hook of any kind is attached.

    It can run while the model itself runs, for instance in one of its hooks.

    >>> model = HookedViT.from_pretrained("emoji-vit")
    >>> model.add_hook("hook_tokens", lambda tokens, hook: 0 * tokens)
    >>> twin = unhooked(model)
    >>> twin.W_U is not model.W_U, twin.head.weight is model.head.weight
    (True, True)
    >>> bool((twin(torch.zeros(1, 3, 64, 64)) == model(torch.zeros(1, 3, 64, 64))).all())
    False
    """
    twin = _copied(model)
    twin._threads, twin._splices, twin._tokens = ThreadGuard(), [], RunningTokens()
    twin.setup()
    return twin


def _copied(module: nn.Module) -> Any:
    if isinstance(module, HookPoint):
        return HookPoint()
    copy: Any = module.__class__.__new__(module.__class__)
    # dicts of parameters, buffers and hooks are of its own; what they hold is shared
    copy.__dict__ = {name: value.copy() if isinstance(value, dict) else value for name, value in vars(module).items()}
    for name, value in vars(copy).items():
        if name.endswith("_hooks") and isinstance(value, OrderedDict):
            value.clear()
    copy._modules = {name: None if part is None else _copied(part) for name, part in module._modules.items()}
    return copy
