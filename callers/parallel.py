"""`python -m callers.parallel`: the same slow sums in series, as a group and as a chord.

The sum over i = 0 … 9 of i + (i + 1), each addition a job of 5 s. In series they take 50 s; in
parallel, on a worker that runs ten jobs at once, 5 s.
"""

from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any, NamedTuple

import click
from celery import chord, group
from rich.console import Console
from rich.table import Table

from callers.client import Client
from callers.command import seconds_option
from callers.progress import OnProgress, counters
from celery_streams.cli import run

#: Number of additions, i + (i + 1) for i from 0.
COUNT = 10
#: Time that the jobs may wait in their queue, in seconds, beyond their own duration.
QUEUE_TIMEOUT = 60.0

OnDone = Callable[[object], object]


class Run(NamedTuple):
    """A way to run the additions, its result and its duration in seconds."""

    way: str
    result: Any
    seconds: float


def signatures(client: Client, seconds: float) -> list[Any]:
    """Return the signatures of the additions."""
    return [
        client.signature("add.tasks.longtime_add", i, i + 1, seconds=seconds) for i in range(COUNT)
    ]


def in_series(client: Client, seconds: float, on_done: OnDone) -> Any:
    """Submit each addition after the previous one has ended; add up the results here."""
    total = 0
    for signature in signatures(client, seconds):
        total += client.call(signature, timeout=seconds + QUEUE_TIMEOUT)
        on_done(None)
    return total


def as_group(client: Client, seconds: float, on_done: OnDone) -> Any:
    """Submit all additions at once; add up the results here."""
    result = client.submit(group(signatures(client, seconds)))
    return sum(client.get(result, COUNT * seconds + QUEUE_TIMEOUT, on_done))


def as_chord(client: Client, seconds: float, on_done: OnDone) -> Any:
    """Submit all additions at once; a final job, `tsum`, adds up the results."""
    result = client.submit(chord(signatures(client, seconds), client.signature("add.tasks.tsum")))
    client.get(result.parent, COUNT * seconds + QUEUE_TIMEOUT, on_done)
    return client.get(result, QUEUE_TIMEOUT)


WAYS = {"series": in_series, "group": as_group, "chord": as_chord}


@click.command()
@seconds_option("--seconds", 5.0, "How long each addition takes.")
def parallel(seconds: float) -> None:
    """Run ten slow additions in series, as a group and as a chord, and compare the times.

    A worker that runs fewer than ten at once (ADD_CONCURRENCY) takes longer for the last two.
    """
    runs = []
    with Client() as client, counters() as counter:
        client.call("add.tasks.add", 0, 0)  # connect, and wait for a worker, before timing
        for way, run_way in WAYS.items():
            start = monotonic()
            result = run_way(client, seconds, each_of(counter(way)))
            runs.append(Run(way, result, monotonic() - start))
    Console().print(table(runs))


def each_of(on_progress: OnProgress) -> OnDone:
    """Return a function that reports one more addition done each time it is called."""
    on_progress(0, COUNT)
    done = count(1)
    return lambda _: on_progress(next(done), COUNT)


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
