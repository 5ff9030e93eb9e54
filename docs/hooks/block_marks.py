"""How a code block that is not run when these pages are tested is marked in the source, and what readers see of it.

A block opens with three backticks, its language and, where it cannot run without data that nobody may ship, a mark in
braces: `{test="skip: needs ImageNet-S"}`, or `parse` in the place of `skip` for commands. `tests/doc_blocks.py` reads
the marks; here they become the block's title.
"""

import re
from typing import Any

_MARK = re.compile(r"^(?P<fence>\s*```\w+) \{test=\"(?:skip|parse): (?P<reason>[^\"]+)\"\}$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Give marked blocks a title that says what they need.

    >>> on_page_markdown('```bash {test="parse: needs ImageNet-S"}')
    '```bash title="needs ImageNet-S"'
    """
    return _MARK.sub(r'\g<fence> title="\g<reason>"', markdown)
