"""How commands report a user's mistakes: one line on standard error and an exit status, no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

__all__ = ["FAILED", "USAGE", "complain", "fail", "user_errors"]

FAILED = 1
"""Exit status if something could not be read, loaded or written."""
USAGE = 2
"""Exit status if an option or argument is invalid; typer's own, too."""


def complain(problem: str | Exception) -> None:
    """Print one line on standard error."""
    typer.echo("error: " + " ".join(str(problem).split()), err=True)


def fail(problem: str | Exception, status: int = FAILED) -> NoReturn:
    """Print one line on standard error and end the command."""
    complain(problem)
    raise typer.Exit(status)


@contextmanager
def user_errors(*kinds: type[Exception], status: int = FAILED) -> Iterator[None]:
    """End the command with one line if the block raises one of `kinds`; for code that depends on the user's input.

    >>> with user_errors(ValueError):
    ...     int("7")
    7
    """
    try:
        yield
    except kinds as error:
        fail(error, status)
