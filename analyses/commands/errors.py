"""How commands report a user's mistakes: one line on standard error and an exit status, no traceback."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

__all__ = ["FAILED", "SPELLINGS", "USAGE", "complain", "fail", "for_the_command_line", "user_errors"]

FAILED = 1
"""Exit status if something could not be read, loaded or written."""
USAGE = 2
"""Exit status if an option or argument is invalid; typer's own, too."""


SPELLINGS = (
    (
        r"add them with `model\.with_class_embeddings.*",
        "add some with --class-embeddings FILE; `hooked-vit prototypes DIR --model NAME --out FILE` makes them from a "
        "folder of pictures for each class",
    ),
    (r"takes no timm arguments, got \S+", "has one image size only: leave out --img-size"),
    (r"use `model\.with_two_classes\(\)`, the same model with", "pass --two-classes, for the same model with"),
    (
        r"pass classes='sorted'.*\(on the command line (\S+), or (.*)\)",
        r"pass \1 to number them in alphabetical order, or \2",
    ),
    (r"on_error='skip' leaves such images out and lists them", "Without --stop, such images are left out and listed"),
    (r"memory_limit=(\d+) bytes, .* about (\d+): raise it", lambda found: _memory(int(found[1]), int(found[2]))),
    (r"`timm\.list_models\('vit\*'\)` lists timm's", "`hooked-vit models` lists all"),
    (r"see analyses\.catalogue\.published\.PUBLISHED", "`hooked-vit report --help` lists them"),
    (r"samples='correct' leaves out all of them: use samples='all'", "faithfulness counts none"),
    (r"pass img_size=\((\d+), (\d+)\) to resample its positions", r"pass --img-size \1,\2 to resample its positions"),
    (r", and load `HookedViT\.from_pretrained\('folder'\)`", ", and pass the folder as --model"),
    (
        r"load its weights into an architecture of timm, with weights='(.*)'",
        r"pass an architecture of timm as --model, and --weights \1",
    ),
    (
        r"pass class_names=\[\.\.\.\], one for each class, or correct `module\.config\.id2label`",
        "correct its config.json",
    ),
    (
        r"load the model with transformers, pass it to `HookedViT\.from_module` and its input to the model",
        "use it in Python",
    ),
    (r"load with the img_size it was trained at, or any other", "pass the --img-size it was trained at, or any other"),
    (r"download=True downloads it", "the option download=yes, as in cifar100:DIR?download=yes, downloads it"),
    (r"masks=False", "the option masks=no"),
    (r"resume=False", "--no-resume"),
    (r"\bweights_key=", "--weights-key="),
    (r"(?<!-)\bprefix=", "--prefix="),
    (r"(?<!-)\bignore_keys\b", "--ignore-keys"),
    (r"\bbatch_size=", "--batch-size="),
)
"""Patterns of what the packages advise in Python, and the same for a command."""


def _memory(limit: int, needed: int) -> str:
    return f"--memory-limit is {limit / 1e6:g} MB, and one patched picture needs about {needed / 1e6:.3g}: raise it"


def for_the_command_line(message: str) -> str:
    """A message with the command's options instead of Python's keywords.

    >>> for_the_command_line("start over with resume=False")
    'start over with --no-resume'
    """
    for pattern, spelling in SPELLINGS:
        message = re.sub(pattern, spelling, message)
    return message


def complain(problem: str | Exception, kind: str = "error") -> None:
    """Print one line on standard error, which begins with `kind`."""
    typer.echo(f"{kind}: {for_the_command_line(' '.join(str(problem).split()))}", err=True)


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
