"""Blocks in words, as in a sentence."""

import pytest
from in_words import blocks_in_words


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("1111", "every block"),
        ("0000", "no block"),
        ("", "no block"),
        ("0100", "block 1"),
        ("0110", "blocks 1 and 2"),
        ("1110", "blocks 0 to 2"),
        ("1010", "blocks 0 and 2"),
        ("110111", "blocks 0 and 1 and 3 to 5"),
        ("10111011", "blocks 0, 2 to 4 and 6 and 7"),
    ],
)
def test_consecutive_blocks_become_a_range(flags, words):
    assert blocks_in_words(flag == "1" for flag in flags) == words


def test_blocks_may_be_numbered():
    assert blocks_in_words([False, True, True, True], blocks=range(1, 5)) == "blocks 2 to 4"
    assert blocks_in_words([False, True], blocks=[0, 7]) == "block 7"
    assert blocks_in_words([True, True], blocks=[0, 7]) == "blocks 0 and 7"
    assert blocks_in_words([False, False], blocks=[0, 7]) == "no block"
