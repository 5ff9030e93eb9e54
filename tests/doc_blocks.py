"""Code blocks of README and docs: find them, run their Python, and run their commands or check that they parse.

A block opens with three backticks and its language. A block that cannot run carries a mark in braces with the reason:
`{test="skip: needs ImageNet-S"}` for Python, which must still compile, `{test="parse: needs ImageNet-S"}` for commands,
whose options must still exist.
"""

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?: \{test=\"(?P<how>skip|parse): (?P<why>[^\"]+)\"\})?\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_LAUNCHER = re.compile(r"^(?:torchrun|accelerate launch) .*?(?=hooked-vit )")


@dataclass(frozen=True)
class Block:
    """A code block: `how` and `why` come from its mark and are empty without one; `line` is its first line of code."""

    language: str
    code: str
    line: int
    how: str
    why: str


def code_blocks(text: str) -> list[Block]:
    """All code blocks of a page, in order.

    Raises:
        ValueError: If a fence cannot be read, so that no block escapes its test because of a typo.
    """
    found = []
    for match in _FENCE.finditer(text):
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        line = text[: match.start("code")].count("\n") + 1
        found.append(Block(match["language"], code, line, match["how"] or "", match["why"] or ""))
    fences = len(re.findall(r"^ *```", text, flags=re.MULTILINE))
    if fences != 2 * len(found):
        raise ValueError(f"{fences} lines with a fence, but only {len(found)} readable blocks: check their marks")
    return found


def run_python(blocks: list[Block], name: str) -> dict[str, object]:
    """Run a page's Python from top to bottom in one namespace and return it; marked blocks are only compiled."""
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        # as many empty lines before the code as the page has, so that a traceback shows the page's line number
        code = compile("\n" * (block.line - 1) + block.code, name, "exec")
        if not block.how:
            exec(code, names)
    return names


def commands(block: Block) -> list[list[str]]:
    """The arguments of each `hooked-vit` command of a block, without its launcher; `...` means any options."""
    lines = block.code.replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        start = _LAUNCHER.sub("", line.strip()).removeprefix(".venv/bin/")
        if start.startswith("hooked-vit "):
            found.append(shlex.split(start, comments=True)[1:])
    return found


def check_command(arguments: list[str]) -> None:
    """Raise typer's usage error unless the command and all its options exist and their values have the right types."""
    from analyses.commands.cli import app

    group: Any = typer.main.get_command(app)
    for command in group.commands.values():
        command.callback = None  # parse only
    if "..." in arguments:
        arguments = [*arguments[: arguments.index("...")], "--help"]
    with contextlib.redirect_stdout(io.StringIO()):
        group.main(arguments, prog_name="hooked-vit", standalone_mode=False)


def run_command(arguments: list[str]) -> str:
    """Run a command in this process and return its output.

    Raises:
        AssertionError: If its exit status is not 0.
    """
    from analyses.commands.cli import app

    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"hooked-vit {shlex.join(arguments)}\n{result.output}"
    return result.output
