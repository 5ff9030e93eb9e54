"""Results in words: for sentences that are written from the numbers."""

from collections.abc import Iterable
from typing import Any

__all__ = ["blocks_in_words"]


def blocks_in_words(holds: Iterable[Any], first: int = 0) -> str:
    """The blocks for which something holds: runs of them, as one says it.

    Args:
        holds: Whether it does, one block after another.
        first: The number of the first of these blocks.

    >>> blocks_in_words([False, True, True, True, False, True])
    'blocks 1 to 3 and 5'
    >>> blocks_in_words([True, True]), blocks_in_words([False, False]), blocks_in_words([False, True])
    ('every block', 'no block', 'block 1')
    """
    flags = [bool(one) for one in holds]
    if flags and all(flags):
        return "every block"
    runs: list[list[int]] = []
    for block, flag in enumerate(flags, start=first):
        if flag and runs and runs[-1][-1] == block - 1:
            runs[-1].append(block)
        elif flag:
            runs.append([block])
    if not runs:
        return "no block"
    named = [_run(run) for run in runs]
    several = sum(map(len, runs)) > 1
    return ("blocks " if several else "block ") + " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))


def _run(blocks: list[int]) -> str:
    if len(blocks) == 1:
        return str(blocks[0])
    return f"{blocks[0]} {'and' if len(blocks) == 2 else 'to'} {blocks[-1]}"
