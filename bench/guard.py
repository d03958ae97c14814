"""`python -m bench.guard`: half a minute beside stock Celery, and an error if we became slow.

The least ratios are about half of what is measured on a quiet machine: noise does not reach them.
"""

import sys

import click

from bench import turn
from bench.comparison import Row, rows
from bench.figures import Figure, Goal
from bench.load import Load
from bench.servers import OwnServer
from bench.systems import named
from bench.turn import Sizes
from callers.command import run
from cluster.errors import ClusterError

ROUNDS = 2
SIZES = Sizes(jobs=500, trips=50, adds=0, chunk=0)
SYSTEMS = "ours,celery-solo"
#: The least of each: ours over stock Celery's; of times, Celery's over ours.
SUBMIT = 0.5
EACH = 0.8
BULK = 0.8
TRIP = 0.7


class TooSlow(ClusterError):
    """This cluster is not as far ahead of stock Celery as it was."""


@click.command()
@click.option("--submit", default=SUBMIT, show_default=True, help="Least ratio, one by one.")
@click.option("--each", default=EACH, show_default=True, help="Least ratio, end to end.")
@click.option("--bulk", default=BULK, show_default=True, help="Least ratio, the same in bulk.")
@click.option("--trip", default=TRIP, show_default=True, help="Least ratio of single jobs' times.")
def guard(submit: float, each: float, bulk: float, trip: float) -> None:
    """Compare with stock Celery, shortly; fail if a ratio is below its least."""
    figures = _figures(submit, each, bulk, trip)
    for figure in figures:
        click.echo(f"{figure.name}: {figure.ratio:.2f} ({figure.asked})")
    slow = [f"{figure.name}: {figure.ratio:.2f}" for figure in figures if not figure.met]
    if slow:
        raise TooSlow(f"slower than it was, beside stock Celery: {'; '.join(slow)}")


def _figures(submit: float, each: float, bulk: float, trip: float) -> list[Figure]:
    ours, celery = _rows()
    more, less = Goal.TIMES_AS_MUCH, Goal.TIMES_LESS
    return [
        Figure("submit", "jobs/s", ours.submit, celery.submit, submit, more),
        Figure("end to end, one by one", "jobs/s", ours.each, celery.each, each, more),
        Figure("end to end, bulk", "jobs/s", ours.bulk, celery.bulk, bulk, more),
        Figure("round trip", "ms", ours.trip, celery.trip, trip, less),
    ]


def _rows() -> list[Row]:
    """Return the rows of both systems, which take turns."""
    load = Load()
    with OwnServer("always") as server:
        samples = [
            turn.take(system, server, SIZES, load)
            for _ in range(ROUNDS)
            for system in named(SYSTEMS)
        ]
    for note in load.notes("while it was measured"):
        sys.stderr.write(f"{note}\n")
    return rows(samples)


if __name__ == "__main__":
    run(guard)
