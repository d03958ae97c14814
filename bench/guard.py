"""`python -m bench.guard`: a short comparison with stock Celery; an error if we became slow.

Both run all the time, and take turns of a second or two, so a noisy machine meets both. The
least ratios are a quarter to a half of what is measured on a quiet one: noise does not reach them.
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
#: The least of each, ours over stock Celery's: what either does in a second.
SUBMITTED = 1.0
EACH = 1.5
BULK = 10.0
TRIPPED = 1.2


class TooSlow(ClusterError):
    """This cluster is not as far ahead of stock Celery as it was."""


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=ROUNDS, show_default=True)
@click.option("--submit", default=SUBMITTED, show_default=True, help="Least ratio: submitted.")
@click.option("--each", default=EACH, show_default=True, help="End to end, one by one.")
@click.option("--bulk", default=BULK, show_default=True, help="End to end, in bulk.")
@click.option("--trip", default=TRIPPED, show_default=True, help="Single jobs, p50.")
def guard(rounds: int, submit: float, each: float, bulk: float, trip: float) -> None:
    """Compare with stock Celery, shortly; fail if a ratio is below its least."""
    least = {"submit": submit, "each": each, "bulk": bulk, "trip": trip}
    ratios = _ratios(rounds)
    for name, ratio in ratios.items():
        click.echo(f"{name}: {ratio:.2f} times stock Celery's, at least {least[name]:g}")
    slow = [f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio < least[name]]
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
    """Return what a system does in a second, each way."""
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
