"""How commands tell a user what went wrong: one line on standard error and an exit status, no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

__all__ = ["FAILED", "USAGE", "complain", "fail", "user_errors"]

FAILED = 1
"""Exit status when something could not be read, loaded or written."""
USAGE = 2
"""Exit status when an option makes no sense; also what typer exits with."""


def complain(problem: str | Exception) -> None:
    """Print one line on standard error."""
    typer.echo("error: " + " ".join(str(problem).split()), err=True)


def fail(problem: str | Exception, status: int = FAILED) -> NoReturn:
    """Print one line on standard error and end the command."""
    complain(problem)
    raise typer.Exit(status)


@contextmanager
def user_errors(*kinds: type[Exception], status: int = FAILED) -> Iterator[None]:
    """End the command with one line where the block raises one of `kinds`; put it around what depends on the user.

    >>> with user_errors(ValueError):
    ...     int("7")
    7
    """
    try:
        yield
    except kinds as error:
        fail(error, status)
