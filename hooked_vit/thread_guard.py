"""Hooks belong to the thread that attached them: other threads may not run the model meanwhile."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ThreadGuard:
    """Counts, per thread, the runs of a model and the blocks that have hooks on it.

    Hooks are part of the model, so a run in another thread would fire them, and fill the caches of the first. Runs
    without hooks may go on in any number of threads at once.

    >>> guard = ThreadGuard()
    >>> with guard.hooking(), guard.running():
    ...     pass
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hooking: Counter[int] = Counter()
        self._running: Counter[int] = Counter()

    def __reduce__(self) -> tuple[Any, ...]:
        return ThreadGuard, ()  # a copy of a model is run by threads of its own

    @contextmanager
    def hooking(self) -> Iterator[None]:
        """Hooks are on within this block.

        Raises:
            RuntimeError: If another thread is running the model, or has hooks on it.
        """
        with self._counted(self._hooking, (self._hooking, self._running)):
            yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """The model runs within this block.

        Raises:
            RuntimeError: If another thread has hooks on the model.
        """
        with self._counted(self._running, (self._hooking,)):
            yield

    @contextmanager
    def _counted(self, counter: Counter[int], exclusive: tuple[Counter[int], ...]) -> Iterator[None]:
        thread = threading.get_ident()
        with self._lock:
            if any(other != thread for used in exclusive for other in used):
                raise RuntimeError(
                    "another thread is running this model, and one of the two has hooks on it. Hooks are part of the "
                    "model, so both would see them: give each thread its own `copy.deepcopy(model)`, or "
                    "`model.with_weights(dict(model.named_parameters()))`, which shares the weights; or let the "
                    "threads take turns with a lock"
                )
            counter[thread] += 1
        try:
            yield
        finally:
            with self._lock:
                counter[thread] -= 1
                if not counter[thread]:
                    del counter[thread]
