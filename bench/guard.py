"""`python -m bench.guard`: a short comparison with stock Celery that fails if we became slow.

Both run all the time, and alternate every second or two, so that noise affects both. The minimum
ratios are a quarter to a half of those of a quiet machine, so that noise alone does not fail.
"""

import statistics
from contextlib import ExitStack

import click

from bench.conversation import Conversation
from bench.servers import OwnServer
from bench.systems import System, named
from bench.turn import prepare, started
from callers.command import run
from cluster.errors import ClusterError

ROUNDS = 5
JOBS = 200
TRIPS = 40
SYSTEMS = "ours,celery-solo"
#: Minimum ratios of our rates to those of stock Celery.
MIN_SUBMIT = 1.0
MIN_EACH = 1.5
MIN_BULK = 10.0
MIN_TRIP = 1.2


class TooSlow(ClusterError):
    """A ratio to stock Celery is below its minimum."""


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=ROUNDS, show_default=True)
@click.option("--submit", default=MIN_SUBMIT, show_default=True, help="Minimum ratio: submit.")
@click.option("--each", default=MIN_EACH, show_default=True, help="End to end, one by one.")
@click.option("--bulk", default=MIN_BULK, show_default=True, help="End to end, in bulk.")
@click.option("--trip", default=MIN_TRIP, show_default=True, help="Single jobs, p50.")
def guard(rounds: int, submit: float, each: float, bulk: float, trip: float) -> None:
    """Compare briefly with stock Celery; fail if a ratio is below its minimum."""
    minimum = {"submit": submit, "each": each, "bulk": bulk, "trip": trip}
    ratios = _ratios(rounds)
    for name, ratio in ratios.items():
        click.echo(f"{name}: {ratio:.2f} times stock Celery's, at least {minimum[name]:g}")
    slow = [f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio < minimum[name]]
    if slow:
        raise TooSlow(f"too slow beside stock Celery: {', '.join(slow)}")


def _ratios(count: int) -> dict[str, float]:
    """Return the median of each ratio over all rounds."""
    with ExitStack() as stack:
        server = stack.enter_context(OwnServer("always"))
        ours, celery = (_client(system, server, stack) for system in named(SYSTEMS))
        rounds = [(_turn(ours), _turn(celery)) for _ in range(count)]
    return {
        name: statistics.median(mine[name] / theirs[name] for mine, theirs in rounds)
        for name in rounds[0][0]
    }


def _client(system: System, server: OwnServer, stack: ExitStack) -> Conversation:
    workers = stack.enter_context(started(system, server))
    env = server.variables(system)
    client = stack.enter_context(Conversation(system, env, server.folder))
    prepare(client, workers)
    return client


def _turn(client: Conversation) -> dict[str, float]:
    """Return a system's rate per second, by each way."""
    each = client.ask("each", count=JOBS)
    bulk = client.ask("bulk", count=JOBS)
    trips = client.ask("trips", count=TRIPS)["ms"]
    return {
        "submit": JOBS / each["submit"],
        "each": JOBS / each["total"],
        "bulk": JOBS / bulk["total"],
        "trip": 1000 / statistics.median(trips),
    }


if __name__ == "__main__":
    run(guard)
