"""`python -m bench.guard`: a short comparison with stock Celery that fails if we became slow.

Both run all the time, and alternate every second or two, so that noise affects both. The minimum
ratios are a quarter to a half of those of a quiet machine, so that noise alone does not fail.
"""

import statistics
from contextlib import ExitStack

import click

from bench import command
from bench.programs import Conversation
from bench.progress import stop_like_ctrl_c
from bench.servers import OwnServer
from bench.systems import named
from bench.turn import running
from celery_streams.cli import run
from cluster.errors import ClusterError

JOBS = 200
TRIPS = 40
SYSTEMS = ("ours", "celery-solo")
#: Minimum ratios of our rates to those of stock Celery.
MIN_SUBMIT = 1.0
MIN_EACH = 1.5
MIN_BULK = 10.0
MIN_TRIP = 1.2


class TooSlow(ClusterError):
    """A ratio to stock Celery is below its minimum."""


@click.command()
@command.rounds(5)
@click.option("--submit", default=MIN_SUBMIT, show_default=True, help="Minimum ratio: submit.")
@click.option("--each", default=MIN_EACH, show_default=True, help="End to end, one by one.")
@click.option("--bulk", default=MIN_BULK, show_default=True, help="End to end, in bulk.")
@click.option("--trip", default=MIN_TRIP, show_default=True, help="Single jobs, p50.")
def guard(rounds: int, **minimum: float) -> None:
    """Compare briefly with stock Celery; fail if a ratio is below its minimum."""
    stop_like_ctrl_c()
    ratios = _ratios(rounds)
    for name, ratio in ratios.items():
        click.echo(f"{name}: {ratio:.2f} times stock Celery's, at least {minimum[name]:g}")
    slow = [f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio < minimum[name]]
    if slow:
        raise TooSlow(f"too slow beside stock Celery: {', '.join(slow)}")


def _ratios(rounds: int) -> dict[str, float]:
    """Return the median of each ratio over all rounds."""
    with ExitStack() as stack:
        server = stack.enter_context(OwnServer("always"))
        ours, celery = (
            stack.enter_context(running(system, server))[1] for system in named(SYSTEMS)
        )
        pairs = [(_rates(ours), _rates(celery)) for _ in range(rounds)]
    return {
        name: statistics.median(mine[name] / theirs[name] for mine, theirs in pairs)
        for name in pairs[0][0]
    }


def _rates(client: Conversation) -> dict[str, float]:
    """Return a system's rate per second, by each way."""
    submitted, total = client.ask("each", count=JOBS)
    return {
        "submit": JOBS / submitted,
        "each": JOBS / total,
        "bulk": JOBS / client.ask("in_bulk", count=JOBS),
        "trip": 1000 / statistics.median(client.ask("trips", count=TRIPS)),
    }


if __name__ == "__main__":
    run(guard)
