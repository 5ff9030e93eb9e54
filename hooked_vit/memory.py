"""Keep the memory that tensors free for the next ones, instead of returning it to the operating system."""

import ctypes
import os
import threading
from collections.abc import Callable

__all__ = ["KeptMemory", "keep_freed_memory"]

# glibc's malloc.h and malloc.c: the parameters of mallopt, and the values it has without this module. The thresholds
# are those at which it arrives by itself once a block of 32 MiB has been freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}

_lock = threading.Lock()
_n_keeping = 0


class KeptMemory:
    """What `keep_freed_memory` returns: `undo()` ends it, and so does leaving a `with` block."""

    def __init__(self) -> None:
        self._is_on = True
        _count(+1)

    def undo(self) -> None:
        """Return freed memory to the operating system again, at once and from now on; a second call does nothing.

        If `keep_freed_memory` was called several times, the last `undo` counts.
        """
        if self._is_on:
            self._is_on = False
            _count(-1)

    def __enter__(self) -> "KeptMemory":
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()


def keep_freed_memory() -> KeptMemory:
    """Let this process keep freed memory, so that large activations do not wait for fresh pages at every run.

    By default, glibc returns the memory of each large tensor to the kernel when the tensor is freed, and the next run
    gets fresh pages, which the kernel first fills with zeros. For a cache of gigabytes this takes longer than to
    compute what is in it. This function sets glibc's `M_MMAP_MAX` and `M_TRIM_THRESHOLD`: the process then stays as
    large as it once was. It concerns the CPU's memory only. With another C library, or another allocator, it does
    nothing.

    Returns:
        An object whose `undo()` restores glibc's usual settings (not others from the environment, such as
        `MALLOC_MMAP_MAX_`) and returns what is free; a `with` block does the same at its end.

    >>> with keep_freed_memory():
    ...     total = sum(torch.ones(1000, 1000).sum().item() for _ in range(3))
    >>> total
    3000000.0
    """
    return KeptMemory()


def _count(change: int) -> None:
    global _n_keeping
    with _lock:
        was, _n_keeping = _n_keeping, _n_keeping + change
        glibc = _glibc()
        if glibc is None or (was > 0) == (_n_keeping > 0):
            return
        mallopt, malloc_trim = glibc
        for parameter, value in (_KEEPING if _n_keeping else _USUAL).items():
            mallopt(parameter, value)
        if not _n_keeping:
            malloc_trim(0)


def _glibc() -> tuple[Callable[[int, int], int], Callable[[int], int]] | None:
    """`mallopt` and `malloc_trim`, where the C library is glibc."""
    try:
        # where there is no such name, this is another C library
        if not os.confstr("CS_GNU_LIBC_VERSION"):
            return None
        library = ctypes.CDLL(None)
        return library.mallopt, library.malloc_trim
    except (AttributeError, OSError, ValueError, TypeError):
        return None
