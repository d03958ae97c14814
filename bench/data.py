"""`python -m bench.data`: how fast large results move, each figure beside its yardstick.

Ours is the time from the call to the value at the caller, the yardstick that of the same work in
this process; they alternate. Every value is checked, outside of the measured time.
"""

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from operator import matmul
from pathlib import Path
from typing import NamedTuple

import click
import gmpy2

from bench import command, memory, stream, work
from bench.command import Results
from bench.figures import Figure
from bench.load import Load
from bench.progress import report
from bench.progress import rounds as rounds_of
from bench.values import SEED, leave_blas_alone, operands, product
from bench.work import Work
from callers.client import Client
from celery_streams.cli import run
from local.cluster import FAMILIES, Cluster
from local.temporary import call, run_on_temporary_cluster


class Sizes(NamedTuple):
    """Sizes of the values, and the number of rounds."""

    factorials: tuple[int, int]
    products: tuple[int, int]
    given: int
    peak: int
    streamed: int
    rounds: int
    #: Factor of `rounds` for short work.
    more: int
    adds: int
    #: Pause before each measurement, in seconds.
    rest: float


FULL = Sizes(
    (20_000, 1_000_000), (1000, 4000), 2000, 4000, 4000, rounds=7, more=7, adds=1000, rest=0.3
)
QUICK = Sizes((2000, 20_000), (50, 200), 100, 200, 200, rounds=2, more=1, adds=30, rest=0.0)


@click.command()
@command.rounds(FULL.rounds)
@command.number("adds", FULL.adds, "Small jobs timed on the idle cluster, and again.", least=100)
@command.json
@command.running
@command.quick
def data(rounds: int, adds: int, file: Path | None, running: bool, quick: bool) -> None:
    """Measure how fast large results move, each figure beside its yardstick.

    A missed bound is reported, but is not an error.
    """
    leave_blas_alone()
    if not running:
        run_on_temporary_cluster(_measured_from_within, LOG_LEVEL="WARNING")
    results = _measure(QUICK if quick else FULL._replace(rounds=rounds, adds=adds))
    command.show_figures(results.figures, results.notes, quick=quick)
    command.write(results, file)


def _measured_from_within(cluster: Cluster) -> int:
    """Run this command again, with an environment that names the cluster."""
    cluster.start_server()
    cluster.start_workers(dict.fromkeys(FAMILIES, 1))
    return call(cluster, [("bench.data", "--running", *sys.argv[1:])], draws=True)


def _measure(sizes: Sizes) -> Results:
    figures: list[Figure] = []

    def keep(measured: Iterable[Figure]) -> None:
        for figure in measured:
            report(f"{figure.name}: {figure.ours} {figure.unit}, beside {figure.yardstick}")
            figures.append(figure)

    with Client() as client:
        client.connect()
        # First: a worker that keeps memory after large work counts it as idle.
        rounds = rounds_of("peak memory", sizes.rounds)
        peaks, notes = memory.measure(client, sizes.peak, rounds)
        keep(peaks)
        load = Load()
        for each in _works(sizes):
            rounds = rounds_of(each.name, sizes.rounds * each.repeats)
            figure = work.measure(client, each, rounds, load, sizes.rest)
            notes += work.impossible(each, figure)
            keep([figure])
        rounds = rounds_of("add while results stream", stream.ROUNDS)
        small, note = stream.measure(client, sizes.streamed, sizes.adds, rounds)
        keep([small])
    return Results(figures, [*notes, note, load.note("while the yardsticks ran")])


def _works(sizes: Sizes) -> Iterator[Work]:
    few, many = sizes.factorials
    task = "factorial.tasks.factorial"
    name = f"factorial({few}), against + 3 ms"
    yield Work(name, task, (few,), partial(gmpy2.fac, few), 1.5, sizes.more, 3.0)
    yield Work(f"factorial({many})", task, (many,), partial(gmpy2.fac, many), 1.3)
    for size, bound, repeats in zip(sizes.products, (1.6, 1.35), (sizes.more, 1), strict=True):
        args = (size, size, SEED)
        name, task = f"mat_mul({size}, {size})", "mat_mul.tasks.mat_mul"
        yield Work(name, task, args, partial(product, *args), bound, repeats)
    given = operands(sizes.given, sizes.given, SEED)
    name = f"multiply, {sizes.given} x {sizes.given} given"
    yield Work(name, "mat_mul.tasks.multiply", given, partial(matmul, *given), 6)


if __name__ == "__main__":
    run(data)
