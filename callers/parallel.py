"""`python -m callers.parallel`: the same slow sums in series, as a group and as a chord.

The sum over i = 0 … 9 of i + (i + 1), each addition a job of 5 s. In series they take the sum
of their times, side by side that of one: a worker that runs ten at once does all in 5 s.
"""

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import click
from celery import chord, group
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from callers.client import Client
from callers.command import run, seconds_option

#: How many additions, i + (i + 1) for i from 0.
COUNT = 10
#: Seconds beyond the jobs' own times that all of them may wait in their queue.
PATIENCE = 60.0

Ack = Callable[[object], object]


class Run(NamedTuple):
    """One way to do it, what came out and how many seconds it took."""

    way: str
    result: Any
    seconds: float


def signatures(client: Client, seconds: float) -> list[Any]:
    """Return the ten additions."""
    return [
        client.signature("add.tasks.longtime_add", i, i + 1, seconds=seconds) for i in range(COUNT)
    ]


def in_series(client: Client, seconds: float, ended: Ack) -> Any:
    """Submit each addition when the one before has ended, and sum up here."""
    total = 0
    for signature in signatures(client, seconds):
        total += client.call(signature, timeout=seconds + PATIENCE)
        ended(None)
    return total


def as_group(client: Client, seconds: float, ended: Ack) -> Any:
    """Submit all additions at once, and sum up here."""
    result = client.submit(group(signatures(client, seconds)))
    return sum(client.get(result, COUNT * seconds + PATIENCE, ended))


def as_chord(client: Client, seconds: float, ended: Ack) -> Any:
    """Submit all additions at once; a last job, `tsum`, sums up."""
    result = client.submit(chord(signatures(client, seconds), client.signature("add.tasks.tsum")))
    client.get(result.parent, COUNT * seconds + PATIENCE, ended)
    return client.get(result, PATIENCE)


WAYS = {"series": in_series, "group": as_group, "chord": as_chord}


@click.command()
@seconds_option("--seconds", 5.0, "How long each addition takes.")
def parallel(seconds: float) -> None:
    """Do ten slow additions in series, as a group and as a chord, and compare their times.

    A worker that runs fewer than ten at once (ADD_CONCURRENCY) takes longer for the last two.
    """
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    runs = []
    terminal = Console(stderr=True)
    bars = Progress(*columns, console=terminal, disable=not terminal.is_terminal)
    with Client() as client, bars as progress:
        client.call("add.tasks.add", 0, 0)  # the connections are made, and a worker is there
        for way, do in WAYS.items():
            bar = progress.add_task(way, total=COUNT)
            start = monotonic()
            result = do(client, seconds, partial(advance, progress, bar))
            runs.append(Run(way, result, monotonic() - start))
    Console().print(table(runs))


def advance(progress: Progress, bar: TaskID, _: object) -> None:
    """Move a progress bar on by one."""
    progress.advance(bar)


def table(runs: list[Run]) -> Table:
    """Return the runs as a table: way, result, wall time in seconds."""
    shown = Table("way", "result", "wall time")
    for column in shown.columns[1:]:
        column.justify = "right"
    for run_ in runs:
        shown.add_row(run_.way, str(run_.result), f"{run_.seconds:.2f} s")
    return shown


if __name__ == "__main__":
    run(parallel)
