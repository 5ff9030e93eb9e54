"""Paired timing: every contender runs in every round, in rotating order, and is compared within its round."""

import statistics
import time
from collections.abc import Callable

import torch


def synchronise() -> None:
    """Wait for the GPU, if one is in use."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def paired_seconds(
    contenders: dict[str, Callable[[], object]], budget: float, rounds: tuple[int, int] = (3, 60)
) -> dict[str, list[float]]:
    """Seconds of each contender in each round, after two warm-up runs of each.

    As many rounds as fit in `budget` seconds, within the given bounds.
    """
    for run in contenders.values():
        run()
    start = time.perf_counter()
    for run in contenders.values():
        run()
    n_rounds = min(max(int(budget / (time.perf_counter() - start)), rounds[0]), rounds[1])
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for index in range(n_rounds):
        # the order rotates, so that no contender always runs on a cold or a hot machine
        for name in names[index % len(names) :] + names[: index % len(names)]:
            synchronise()
            start = time.perf_counter()
            result = contenders[name]()
            synchronise()
            seconds[name].append(time.perf_counter() - start)
            del result
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> float:
    """Median over rounds of the contender's time over the base's in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))
