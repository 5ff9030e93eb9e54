"""Progress of long work: a bar on a terminal or in a notebook, now and then a line elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

__all__ = ["progress_bar", "stated", "working"]

_SECONDS_BETWEEN_LINES = 30.0


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None:
            return Text("")
        number = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        return Text(f"{number} {task.description}/s")


@contextmanager
def progress_bar(
    total: int, done: int = 0, show: bool | None = None, what: str = "images", lines: bool = False
) -> Iterator[Callable[[float], None]]:
    """Show a progress bar within the block; call the yielded function with the number of images done since.

    Args:
        total: The number of images.
        done: How many were done before, by a run that this one resumes.
        show: Whether to show it; by default, if standard error is a terminal (or this is a notebook).
        what: The items that are counted.
        lines: Whether to write a line with the time left every half minute where no bar is shown, unless `show` is
            False: for work of many minutes.

    >>> with progress_bar(100, show=False) as advance:
    ...     advance(32)
    """
    console = Console(stderr=True)
    if not _is_shown(console, show):
        yield _lines(total, done, what) if lines and show is None else lambda n: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda n: progress.advance(task, n)


def _lines(total: int, done: float | int, what: str) -> Callable[[float], None]:
    """Count, and write a line to standard error every half minute."""
    start = last = time.monotonic()
    at_start = done

    def advance(n: float | int) -> None:
        nonlocal done, last
        done, now = done + n, time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES and done < total:
            last, seconds = now, (total - done) * (now - start) / (done - at_start)
            stated(f"{done:,.0f} of {total:,} {what}, {_duration(seconds)} left")

    return advance


def stated(text: str) -> None:
    """Write a line about the work to standard error."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(text))


def _duration(seconds: float | int) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


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
