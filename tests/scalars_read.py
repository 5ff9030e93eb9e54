"""How often a computation reads a number from a tensor, for which a GPU would have to be waited for."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::masked_select", "aten::_unique2"}


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indices = args[1] if func._schema.name in ("aten::index", "aten::index_put_") else ()
        by_mask = any(isinstance(index, torch.Tensor) and index.dtype is torch.bool for index in indices)
        self.n += func._schema.name in WAITING or by_mask
        return func(*args, **(kwargs or {}))


def scalars_read(compute: Callable[[], object]) -> int:
    """`.item()`, `bool()`, indexing with a mask and the like."""
    with _Counter() as counter:
        compute()
    return counter.n
