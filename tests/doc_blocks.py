"""Code blocks of README and docs: finding them, running Python, running commands or checking that they parse.

A block opens with three backticks and its language. A mark in braces after it says that it cannot run as it stands, and
why: `{test="skip: needs ImageNet-S"}` for Python, which must still compile, `{test="parse: needs ImageNet-S"}` for
commands, whose options must still exist.
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
    """A code block: `how` and `why` are its mark's, empty where it has none; `line` is where its code begins."""

    language: str
    code: str
    line: int
    how: str
    why: str


def code_blocks(text: str) -> list[Block]:
    """All code blocks of a page, in order.

    Raises:
        ValueError: If a fence opens in a way that is none of these, so that no block escapes its test by a misprint.
    """
    found = []
    for match in _FENCE.finditer(text):
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        line = text[: match.start("code")].count("\n") + 1
        found.append(Block(match["language"], code, line, match["how"] or "", match["why"] or ""))
    fences = len(re.findall(r"^ *```", text, flags=re.MULTILINE))
    if fences != 2 * len(found):
        raise ValueError(f"{fences} lines with a fence, of {len(found)} blocks that can be read: see their marks")
    return found


def run_python(blocks: list[Block], name: str) -> dict[str, object]:
    """Run a page's Python from top to bottom in one namespace, which is returned; what is marked is compiled only."""
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        # as many empty lines in front as the page has, so that a traceback names its line
        code = compile("\n" * (block.line - 1) + block.code, name, "exec")
        if not block.how:
            exec(code, names)
    return names


def commands(block: Block) -> list[list[str]]:
    """The arguments of each `hooked-vit` command of a block, whoever launches it; `...` stands for options."""
    lines = block.code.replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        start = _LAUNCHER.sub("", line.strip()).removeprefix(".venv/bin/")
        if start.startswith("hooked-vit "):
            found.append(shlex.split(start, comments=True)[1:])
    return found


def check_command(arguments: list[str]) -> None:
    """Raise typer's usage error unless a command and all its options exist and have values of their kinds."""
    from analyses.commands.cli import app

    group: Any = typer.main.get_command(app)
    for command in group.commands.values():
        command.callback = None  # parse, and do nothing
    if "..." in arguments:
        arguments = [*arguments[: arguments.index("...")], "--help"]
    with contextlib.redirect_stdout(io.StringIO()):
        group.main(arguments, prog_name="hooked-vit", standalone_mode=False)


def run_command(arguments: list[str]) -> str:
    """Run a command in this process; what it printed.

    Raises:
        AssertionError: If its exit status is not 0.
    """
    from analyses.commands.cli import app

    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"hooked-vit {shlex.join(arguments)}\n{result.output}"
    return result.output
