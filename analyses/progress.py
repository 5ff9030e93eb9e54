"""A progress bar: images done, images per second, time left; only shown on a terminal or in a notebook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

__all__ = ["progress_bar", "working"]


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None:
            return Text("")
        number = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        return Text(f"{number} {task.description}/s")


@contextmanager
def progress_bar(
    total: int, done: int = 0, show: bool | None = None, what: str = "images"
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar within the block; call the yielded function with the number of images done since.

    Args:
        total: The number of images.
        done: How many were done before, by a run that this one resumes.
        show: Whether to show it; by default, if standard error is a terminal (or this is a notebook).
        what: The items that are counted.

    >>> with progress_bar(100, show=False) as advance:
    ...     advance(32)
    """
    console = Console(stderr=True)
    if not _is_shown(console, show):
        yield lambda n: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda n: progress.advance(task, n)


@contextmanager
def working(what: str, show: bool | None = None) -> Iterator[None]:
    """Show what is being done within the block, for work that cannot be counted.

    Args:
        what: The work, such as "loading a model".
        show: As for `progress_bar`.

    >>> with working("counting sheep", show=False):
    ...     pass
    """
    console = Console(stderr=True)
    if not _is_shown(console, show):
        yield
        return
    with console.status(Text(what)):
        yield


def _is_shown(console: Console, show: bool | None) -> bool:
    return (console.is_terminal or console.is_jupyter) if show is None else show
