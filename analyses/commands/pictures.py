"""Picture files that a user named."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from analyses.commands.errors import FAILED, complain

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["existing_pictures", "read_picture", "readable_picture", "require_pictures"]


def existing_pictures(paths: list[Path]) -> list[Path]:
    """The paths that are files, after a line on standard error for each of the others."""
    existing = [path for path in paths if path.is_file()]
    for path in paths:
        if path not in existing:
            complain(f"no picture at '{path}'")
    return existing


def require_pictures(*paths: Path) -> None:
    """End the command if any of the paths is not a file, with a line for each of those."""
    if len(existing_pictures(list(paths))) < len(paths):
        raise typer.Exit(FAILED)


def readable_picture(path: Path) -> "Image | None":
    """A picture; `None`, after a line on standard error, if it cannot be read."""
    from PIL.Image import DecompressionBombError

    from hooked_vit.preprocessing import as_picture

    try:
        return as_picture(path)
    except (ValueError, OSError, DecompressionBombError) as error:
        complain(error)
        return None


def read_picture(path: Path) -> "Image":
    """A picture, or the end of the command with a line that says why it cannot be read."""
    picture = readable_picture(path)
    if picture is None:
        raise typer.Exit(FAILED)
    return picture
