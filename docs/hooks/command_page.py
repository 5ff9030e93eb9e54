"""The page of the command line, written by typer from the command itself."""

import html
import subprocess
import sys
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

INTRODUCTION = """\
# Command line

`hooked-vit` asks the most common questions without a line of Python. A command writes its figures and tables to where
`--out` says and prints their paths; with `--json` it prints one document for machines. What goes wrong is told in one
line on standard error; the exit status is 1 if something could not be read, loaded or written, 2 if an option makes no
sense.

This page is made from the command itself when the documentation is built; `hooked-vit COMMAND --help` prints the same.
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the page."""
    files.append(File.generated(config, "commands.md", content=page()))
    return files


def page() -> str:
    """The introduction, then what `typer ... utils docs` says, a section for each command."""
    command = [sys.executable, "-m", "typer", "analyses.commands.cli", "utils", "docs", "--name", "hooked-vit"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise PluginError(f"typer cannot describe the command line:\n{run.stderr}")
    _, _, commands = html.unescape(run.stdout).partition("\n## ")
    if not commands:
        raise PluginError(f"typer described no command:\n{run.stdout}")
    return f"{INTRODUCTION}\n## {commands}"
