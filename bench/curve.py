"""`python -m bench.curve`: throughput by the number of workers and by the length of the queue.

The rate at which workers empty a queue should not depend on its length.
"""

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, sleep

import click
import msgspec

from bench import command, progress
from bench.figures import Measured, table
from bench.peers.protocol import TIMEOUT
from bench.servers import OwnServer
from bench.systems import OURS
from bench.turn import WARM_UP, running, started
from celery_streams.cli import run
from cluster.errors import ClusterError

WORKERS = (1, 2, 4, 8)
MIN_DEPTH = 1000
DEPTH = 1_000_000
#: The shares of the results at which the clock starts and stops: this leaves out the start of the
#: workers, and the last jobs, when some workers have none.
FIRST, LAST = 0.05, 0.95
#: Interval at which the results are counted, in seconds.
POLL_INTERVAL = 0.01


class Curve(msgspec.Struct):
    """Jobs a second by the number of workers and of waiting jobs; one sample per round."""

    workers: dict[int, list[float]]
    depth: dict[int, list[float]]


@click.command()
@command.rounds(3)
@command.number("jobs", 5000, "Jobs for each number of workers.", least=10)
@command.number("depth", DEPTH, "Jobs in the queue at most.", least=MIN_DEPTH)
@click.option("--appendfsync", type=command.PERSISTENCES, default="always", show_default=True)
@command.json
def curve(rounds: int, jobs: int, depth: int, appendfsync: str, file: Path | None) -> None:
    """Measure this cluster with 1 to 8 workers, and with 1000 jobs to DEPTH in the queue."""
    measured = Curve({count: [] for count in WORKERS}, {count: [] for count in depths(depth)})
    progress.stop_like_ctrl_c()
    with OwnServer(appendfsync) as server:
        for _ in progress.rounds("round", rounds):
            for count, rates in measured.workers.items():
                rates.append(_with_workers(server, count, jobs))
                progress.report(f"{count} worker(s): {rates[-1]:.0f} jobs/s")
            for count, rates in measured.depth.items():
                rates.append(_drained(server, count))
                progress.report(f"{count:,} jobs in the queue: {rates[-1]:.0f} jobs/s")
    command.show(_table("workers", measured.workers))
    command.show(_table("jobs in the queue", measured.depth))
    command.write(measured, file)


def depths(max_depth: int) -> Iterator[int]:
    """Yield 1000, 10,000 and so on up to `max_depth`."""
    count = MIN_DEPTH
    while count <= max_depth:
        yield count
        count *= 10


def _with_workers(server: OwnServer, count: int, jobs: int) -> float:
    """Return the jobs a second, end to end and in bulk, of `count` workers."""
    server.reset()
    system = OURS._replace(workers=OURS.workers * count, variables=(("ADD_CONCURRENCY", "1"),))
    with running(system, server, count) as (_, client):
        client.ask("in_bulk", count=WARM_UP * count)
        return jobs / float(client.ask("in_bulk", count=jobs))


def _drained(server: OwnServer, count: int) -> float:
    """Return the rate at which two processes empty a queue of `count` jobs, in jobs a second.

    The results are counted in Redis: the client has ended, and takes no CPU.
    """
    server.reset()
    system = OURS._replace(variables=(("QUEUE_MAX_LENGTH", str(2 * DEPTH)),))
    with server.client(system) as client:
        ids = client.ask("queue", count=count)
    before = server.keys()
    with started(system, server):
        begin = _time_of(server, before + FIRST * count)
        end = _time_of(server, before + LAST * count)
        _time_of(server, before + count)
        with server.client(system) as client:
            client.ask("fetch", ids=ids)
    return (LAST - FIRST) * count / (end - begin)


def _time_of(server: OwnServer, keys: float) -> float:
    """Wait until there are `keys` keys, and return the time.

    Raises ClusterError if there is no new one for TIMEOUT.
    """
    latest = perf_counter()
    greatest = 0
    while (count := server.keys()) < keys:
        if count > greatest:
            greatest, latest = count, perf_counter()
        if perf_counter() > latest + TIMEOUT:
            raise ClusterError(f"no result for {TIMEOUT} s: {greatest} of {keys:g}")
        sleep(POLL_INTERVAL)
    return perf_counter()


def _table(what: str, samples: dict[int, list[float]]) -> str:
    rows = [(f"{count:,}", Measured.median(rates)) for count, rates in samples.items()]
    return table((what, "jobs/s"), rows)


if __name__ == "__main__":
    run(curve)
