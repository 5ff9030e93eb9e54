"""Blocks as one says them."""

import pytest
from in_words import blocks_in_words


@pytest.mark.parametrize(
    ("holds", "words"),
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
def test_runs_of_blocks(holds, words):
    assert blocks_in_words(flag == "1" for flag in holds) == words


def test_blocks_are_counted_from_the_first_that_is_given():
    assert blocks_in_words([False, True, True, True], first=1) == "blocks 2 to 4"
