"""The progress of a command, on stderr while that is a terminal; it is removed at the end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

#: Called with the amount done and the total.
OnProgress = Callable[[int, int], object]


@contextmanager
def transfer_progress(task: str) -> Iterator[OnProgress | None]:
    """Show that a job is pending; yield a callback for the bytes transferred."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    waiting = Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    waiting.add_task(f"waiting for {task}", total=None)
    bytes_ = Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = bytes_.add_task("", visible=False)
    previous = 0

    def on_transfer(done: int, total: int) -> None:
        nonlocal previous
        if done <= previous:  # another value begins
            bytes_.reset(bar)
        previous = done if done < total else 0
        bytes_.update(bar, completed=done, total=total, visible=done < total)

    with _shown(waiting, bytes_):
        yield on_transfer


@contextmanager
def counters() -> Iterator[Callable[[str], OnProgress]]:
    """Yield a function that shows one more bar, with a description, and returns its callback."""
    if not sys.stderr.isatty():
        yield lambda _: lambda done, total: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn())
    bars = Progress(*columns, TimeElapsedColumn())

    def add(description: str) -> OnProgress:
        bar = bars.add_task(description, total=None)
        return lambda done, total: bars.update(bar, completed=done, total=total)

    with _shown(bars):
        yield add


@contextmanager
def _shown(*bars: "Progress") -> Iterator[None]:
    from rich.console import Console, Group
    from rich.live import Live

    with Live(Group(*bars), console=Console(stderr=True), transient=True):
        yield
