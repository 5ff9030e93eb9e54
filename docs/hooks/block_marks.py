"""Marks of code blocks that the tests do not run: how the source writes them, and what readers see instead.

A block that needs data nobody may ship carries a mark in braces after its language: `{test="skip: needs ImageNet-S"}`,
or `parse` instead of `skip` for commands. `tests/doc_blocks.py` reads the marks; here each becomes its block's title.
"""

import re
from typing import Any

_MARK = re.compile(r"^(?P<fence>\s*```\w+) \{test=\"(?:skip|parse): (?P<reason>[^\"]+)\"\}$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each mark by a title that says what the block needs.

    >>> on_page_markdown('```bash {test="parse: needs ImageNet-S"}')
    '```bash title="needs ImageNet-S"'
    """
    return _MARK.sub(r'\g<fence> title="\g<reason>"', markdown)
