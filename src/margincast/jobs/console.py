"""What a job tells the person who started it: stages, progress, and the final word."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False)
"""Progress and remarks go to standard error, results to standard output."""

output = Console(highlight=False)
if not output.is_terminal:
    # a log file or pipe has no width; tables need this much to stay on one line a row
    output = Console(highlight=False, width=160)


def say(text: str) -> None:
    """Print one remark."""
    console.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress(title: str, total: int) -> Iterator["Counter"]:
    """Show a progress bar while a piece of work runs; plain lines where there is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield Counter(bar, title, total)


class Counter:
    """Counts finished pieces of work, as a bar on a terminal and as lines elsewhere."""

    def __init__(self, bar: Progress, title: str, total: int) -> None:
        self._bar, self._title, self._total, self._done = bar, title, total, 0
        self._task = bar.add_task(title, total=total, now="")

    def remark(self, now: str) -> None:
        """Show on a terminal what is going on within a piece."""
        self._bar.update(self._task, now=now)

    def skip(self, done: int) -> None:
        """Count pieces that an earlier run has done."""
        self._done += done
        self._bar.update(self._task, advance=done)

    def advance(self, now: str, *, quiet: bool = False) -> None:
        """Count one piece as done; ``now`` says which. Short pieces are quiet off a terminal."""
        self._done += 1
        self._bar.update(self._task, advance=1, now=now)
        if not console.is_terminal and not quiet:
            say(f"{self._title} {self._done}/{self._total}: {now}")
