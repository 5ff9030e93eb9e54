"""Results in words: for sentences that are written from the numbers."""

from collections.abc import Iterable
from typing import Any

__all__ = ["blocks_in_words"]


def blocks_in_words(flags: Iterable[Any], blocks: Iterable[int] | None = None) -> str:
    """The blocks for which something holds, with consecutive blocks as a range.

    Args:
        flags: Whether it holds, one flag per block.
        blocks: The numbers of these blocks in ascending order; 0, 1, 2, ... by default.

    >>> blocks_in_words([False, True, True, True, False, True])
    'blocks 1 to 3 and 5'
    >>> blocks_in_words([True, True]), blocks_in_words([False, False]), blocks_in_words([False, True])
    ('every block', 'no block', 'block 1')
    >>> blocks_in_words([False, True], blocks=[0, 7])
    'block 7'
    """
    holds = [bool(flag) for flag in flags]
    numbers = list(range(len(holds)) if blocks is None else blocks)
    if holds and all(holds) and numbers == list(range(len(holds))):
        return "every block"
    ranges: list[list[int]] = []
    for block, flag in zip(numbers, holds, strict=True):
        if flag and ranges and ranges[-1][-1] == block - 1:
            ranges[-1].append(block)
        elif flag:
            ranges.append([block])
    if not ranges:
        return "no block"
    *others, last = map(_range_in_words, ranges)
    plural = "blocks" if sum(map(len, ranges)) > 1 else "block"
    return f"{plural} {', '.join(others)} and {last}" if others else f"{plural} {last}"


def _range_in_words(blocks: list[int]) -> str:
    if len(blocks) == 1:
        return str(blocks[0])
    return f"{blocks[0]} {'and' if len(blocks) == 2 else 'to'} {blocks[-1]}"
