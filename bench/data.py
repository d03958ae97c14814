"""`python -m bench.data`: how fast large results move, each figure beside its yardstick.

Ours is the time from the call to the value at the caller, the yardstick that of the same work in
this process; they alternate. Every value is checked, outside of the measured time.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import memory, stream, work
from bench.figures import Figure, check_writable, missed, table, write
from bench.load import Load
from bench.progress import Progress as Record
from bench.values import leave_blas_alone
from callers.client import Client
from callers.command import run
from local.cluster import FAMILIES, Cluster
from local.temporary import call, run_on_temporary_cluster

Rounds = Callable[[str, int], Iterator[int]]


class Sizes(NamedTuple):
    """Sizes of the values, and the number of repeats."""

    factorials: tuple[int, int]
    products: tuple[int, int]
    given: int
    peak: int
    streamed: int
    repeats: int
    #: Factor of `repeats` for short work.
    more: int
    adds: int
    #: Pause before each measurement, in seconds.
    rest: float


FULL = Sizes(
    (20_000, 1_000_000), (1000, 4000), 2000, 4000, 4000, repeats=7, more=7, adds=1000, rest=0.3
)
QUICK = Sizes((2000, 20_000), (50, 200), 100, 200, 200, repeats=2, more=1, adds=30, rest=0.0)


@click.command()
@click.option(
    "--repeats",
    type=click.IntRange(min=5),
    default=FULL.repeats,
    show_default=True,
    help="Repeats of each measurement; short ones are repeated more often.",
)
@click.option(
    "--adds",
    type=click.IntRange(min=100),
    default=FULL.adds,
    show_default=True,
    help="Small jobs timed on the idle cluster, and again while results stream.",
)
@click.option(
    "--json",
    "file",
    type=click.Path(path_type=Path),
    help="Also write the figures to this file.",
)
@click.option(
    "--running",
    is_flag=True,
    help="Measure a cluster that already runs, on Docker for instance.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Small values, 2 repeats, 30 small jobs: a trial whose figures mean nothing.",
)
def data(repeats: int, adds: int, file: Path | None, running: bool, quick: bool) -> None:
    """Measure how fast large results move, each figure beside its yardstick.

    A missed bound is reported, but is not an error. If it is interrupted, it prints the figures so
    far, says where they are kept, and exits with an error.
    """
    leave_blas_alone()
    if file:
        try:
            check_writable(file)
        except OSError as error:
            raise click.UsageError(f"cannot write {str(file)!r}: {error}") from None
    if not running:
        # Log lines would run through the progress bars.
        run_on_temporary_cluster(_measured_from_within, LOG_LEVEL="WARNING")
    sizes = QUICK if quick else FULL._replace(repeats=repeats, adds=adds)
    with Record("data") as record:
        figures, notes = _measure(sizes, record)
    console = Console()
    console.print(table(figures))
    last = "--quick: these figures mean nothing" if quick else missed(figures)
    for line in (*notes, last):
        console.print(line, highlight=False, soft_wrap=True)
    if file:
        write(figures, file)


def _measured_from_within(cluster: Cluster) -> int:
    """Run this command again, with an environment that names the cluster."""
    cluster.start_server()
    cluster.start_workers(dict.fromkeys(FAMILIES, 1))
    return call(cluster, [("bench.data", "--running", *sys.argv[1:])], draws=True)


def _measure(sizes: Sizes, record: Record) -> tuple[list[Figure], list[str]]:
    """Return all figures, and notes on them."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    terminal = Console(stderr=True)
    # Drawn only between rounds: a refresh thread would disturb the measurement.
    bars = Progress(
        *columns,
        TimeElapsedColumn(),
        console=terminal,
        disable=not terminal.is_terminal,
        auto_refresh=False,
    )
    done: list[Figure] = []

    def keep(figures: Iterable[Figure]) -> None:
        for figure in figures:
            done.append(figure)
            record.keep(f"{figure.name}: {figure.ours.value:.2f} {figure.unit}", **figure.as_json())

    with _shown_if_stopped(done), Client() as client, bars:

        def rounds(what: str, count: int) -> Iterator[int]:
            record.report(f"{what}, {count} times")
            bar = bars.add_task(what, total=count)
            bars.refresh()
            for number in range(count):
                yield number
                bars.advance(bar)
                bars.refresh()

        client.connect()
        peaks, notes = memory.measure(client, sizes.peak, rounds("peak memory", sizes.repeats))
        keep(peaks)
        load = Load()
        works = [*_works(sizes)]
        times = []
        for each in works:
            repeats = rounds(each.name, sizes.repeats * each.repeats)
            times.append(work.measure(client, each, repeats, load, sizes.rest))
            keep(times[-1:])
        small, more_notes = stream.measure(
            client, sizes.streamed, sizes.adds, rounds("add while results stream", stream.ROUNDS)
        )
        keep(small)
    notes += [*more_notes, *work.impossible(works, times), *load.notes()]
    return [*times, *peaks, *small], notes


@contextmanager
def _shown_if_stopped(figures: Iterable[Figure]) -> Iterator[None]:
    """Print the figures so far if the block fails or is interrupted."""
    try:
        yield
    except BaseException:
        if rows := list(figures):
            Console().print(table(rows))
        raise


def _works(sizes: Sizes) -> Iterator[work.Work]:
    few, many = sizes.factorials
    small, large = sizes.products
    yield work.of_factorial(few, bound=1.5, repeats=sizes.more, allowance=3.0)
    yield work.of_factorial(many, bound=1.3)
    yield work.of_product(small, bound=1.6, repeats=sizes.more)
    yield work.of_product(large, bound=1.35)
    yield work.of_given(sizes.given, bound=6)


if __name__ == "__main__":
    run(data)
