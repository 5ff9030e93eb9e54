"""The page of the command line, which typer writes from the commands themselves."""

import html
import subprocess
import sys
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

INTRODUCTION = """\
# Command line

`hooked-vit` answers the most common questions without a line of Python. Each command writes its figures and tables to
`--out` and prints their paths; with `--json` it prints a single JSON document instead. An error is one line on standard
error. The exit status is 1 if something could not be read, loaded or written, and 2 if an option is invalid.
Images that a sweep leaves out are lines that begin with `skipped:`; they do not change the exit status.

This page is generated from the commands when the documentation is built; `hooked-vit COMMAND --help` prints the same
text.
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the page."""
    files.append(File.generated(config, "commands.md", content=page()))
    return files


def page() -> str:
    """The introduction, then the output of `typer ... utils docs`: one section per command."""
    command = [sys.executable, "-m", "typer", "analyses.commands.cli", "utils", "docs", "--name", "hooked-vit"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise PluginError(f"typer cannot describe the command line:\n{run.stderr}")
    _, _, commands = html.unescape(run.stdout).partition("\n## ")
    if not commands:
        raise PluginError(f"typer described no command:\n{run.stdout}")
    return f"{INTRODUCTION}\n## {commands}"
