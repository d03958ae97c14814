"""`python -m bench.curve`: throughput by the number of workers and by the length of the queue.

The rate at which workers empty a queue should not depend on its length.
"""

from collections.abc import Iterator
from time import perf_counter, sleep
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table

from bench.conversation import Conversation
from bench.figures import Measured, brief
from bench.peers.protocol import TIMEOUT
from bench.progress import Progress
from bench.servers import OwnServer
from bench.systems import OURS, System
from bench.turn import WARM_UP, started
from callers.command import run
from cluster.errors import ClusterError

WORKERS = (1, 2, 4, 8)
MIN_DEPTH = 1000
DEPTH = 1_000_000
ROUNDS = 3
JOBS = 5000
#: The shares of the results at which the clock starts and stops: this leaves out the start of the
#: workers, and the last jobs, when some workers have none.
FIRST, LAST = 0.05, 0.95
#: Interval at which the results are counted, in seconds.
POLL_INTERVAL = 0.01


class Curve(NamedTuple):
    """Jobs a second by the number of workers and of waiting jobs; one sample per round."""

    workers: dict[str, list[float]]
    depth: dict[str, list[float]]

    @property
    def rounds(self) -> int:
        """The number of rounds."""
        return min(map(len, self.workers.values()))


def measure(server: OwnServer, rounds: int, jobs: int, max_depth: int, progress: Progress) -> Curve:
    """Return the curve of this cluster, with up to `max_depth` jobs in the queue.

    If it is interrupted, it prints the samples so far.
    """
    workers: dict[str, list[float]] = {str(count): [] for count in WORKERS}
    depth: dict[str, list[float]] = {str(count): [] for count in depths(max_depth)}
    measured = Curve(workers, depth)
    try:
        for number in range(rounds):
            for count in WORKERS:
                what = f"round {number + 1} of {rounds}, {count} worker(s)"
                progress.report(what)
                rate = _with_workers(server, count, jobs)
                workers[str(count)].append(rate)
                progress.keep(f"{what}: {rate:.0f} jobs/s", workers=count, rate=rate)
            for count in depths(max_depth):
                what = f"round {number + 1} of {rounds}, {count:,} jobs in the queue"
                progress.report(what)
                rate = _drained(server, count)
                depth[str(count)].append(rate)
                progress.keep(f"{what}: {rate:.0f} jobs/s", depth=count, rate=rate)
    except BaseException:
        if any(workers.values()):
            Console().print(table(measured))
        raise
    return measured


def depths(max_depth: int) -> Iterator[int]:
    """Yield 1000, 10,000 and so on up to `max_depth`."""
    count = MIN_DEPTH
    while count <= max_depth:
        yield count
        count *= 10


def _with_workers(server: OwnServer, count: int, jobs: int) -> float:
    """Return the jobs a second, end to end and in bulk, of `count` workers."""
    server.reset()
    system = _with(count)
    with (
        started(system, server),
        Conversation(system, server.variables(system), server.folder) as client,
    ):
        client.ask("ready", workers=count)
        client.ask("bulk", count=WARM_UP * count)
        return jobs / float(client.ask("bulk", count=jobs)["total"])


def _drained(server: OwnServer, count: int) -> float:
    """Return the rate at which two workers empty a queue of `count` jobs, in jobs a second.

    The results are counted in Redis: the client has ended, and takes no CPU.
    """
    server.reset()
    system = OURS._replace(variables=(("QUEUE_MAX_LENGTH", str(2 * DEPTH)),))
    with Conversation(system, server.variables(system), server.folder) as client:
        ids = client.ask("queue", count=count)["ids"]
    before = server.keys()
    with started(system, server):
        begin = _time_of(server, before + FIRST * count)
        end = _time_of(server, before + LAST * count)
        _time_of(server, before + count)
        with Conversation(system, server.variables(system), server.folder) as client:
            client.ask("fetch", ids=ids)
    return (LAST - FIRST) * count / (end - begin)


def _time_of(server: OwnServer, keys: float) -> float:
    """Wait until there are `keys` keys, and return the time.

    Raises ClusterError if there is no new one for TIMEOUT.
    """
    latest = perf_counter()
    greatest = 0
    while True:
        count = server.keys()
        if count >= keys:
            return perf_counter()
        if count > greatest:
            greatest, latest = count, perf_counter()
        if perf_counter() > latest + TIMEOUT:
            raise ClusterError(f"no result for {TIMEOUT} s: {greatest} of {keys:g}")
        sleep(POLL_INTERVAL)


def _with(count: int) -> System:
    one = (("ADD_CONCURRENCY", "1"),)
    return OURS._replace(workers=OURS.workers[:1] * count, variables=one)


def table(curve: Curve) -> Table:
    """Return a curve as a table: medians, least and greatest."""
    shown = Table("", "jobs/s", "least … greatest")
    for what, samples in (("worker(s)", curve.workers), ("jobs in the queue", curve.depth)):
        for count, rates in samples.items():
            if not rates:  # it was interrupted before
                continue
            rate = Measured.median(rates)
            spread = f"{brief(rate.least)} … {brief(rate.greatest)}"
            shown.add_row(f"{int(count):,} {what}", brief(rate.value), spread)
    return shown


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=ROUNDS, show_default=True)
@click.option("--jobs", type=click.IntRange(min=10), default=JOBS, show_default=True)
@click.option("--depth", type=click.IntRange(min=MIN_DEPTH), default=DEPTH, show_default=True)
@click.option("--appendfsync", type=click.Choice(("always", "everysec", "no")), default="always")
def curve(rounds: int, jobs: int, depth: int, appendfsync: str) -> None:
    """Measure this cluster with 1 to 8 workers, and with 1000 jobs to DEPTH in the queue."""
    with Progress("curve") as progress, OwnServer(appendfsync) as server:
        measured = measure(server, rounds, jobs, depth, progress)
    Console().print(table(measured))


if __name__ == "__main__":
    run(curve)
