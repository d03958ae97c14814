"""`python -m callers.inspect`: what all workers do, and how many jobs wait for them."""

import sys
from collections import Counter
from datetime import timedelta
from time import time
from typing import Any

import click
from kombu.exceptions import ChannelError
from rich.console import Console
from rich.table import Column, Table

from callers.client import Client
from callers.command import run, seconds_option
from cluster.errors import ClusterError

#: Columns of the tables in a pipe.
PIPE_WIDTH = 200
#: Characters of a job's arguments that the table shows.
ARGUMENTS_SHOWN = 40


@click.command()
@seconds_option("--timeout", 1.0, "How long workers have to answer.")
def inspect(timeout: float) -> None:
    """Show all workers, their queues and the jobs that run.

    It asks as `celery inspect stats`, `active` and `active_queues` do.
    """
    with Client() as client:
        client.connect()
        workers = client.app.control.inspect(timeout=timeout)
        stats, active, queues = workers.stats(), workers.active(), workers.active_queues()
        if not (stats and active and queues):
            raise ClusterError(f"no worker answers within {timeout:g} s")
        waiting = {queue: waiting_in(client, queue) for queue in client.app.amqp.queues}
    # A pipe has no width: nothing is cut there.
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(workers_table(stats, active, queues))
    console.print(queues_table(waiting, queues))
    console.print(jobs_table(active))


def waiting_in(client: Client, queue: str) -> int:
    """Return how many jobs wait in a queue."""
    with client.app.connection_or_acquire() as connection:
        try:
            declared: Any = client.app.amqp.queues[queue].bind(connection.default_channel)
            return int(declared.queue_declare(passive=True).message_count)
        except ChannelError:  # Redis has no list of this name: it is empty
            return 0


def workers_table(stats: Any, active: Any, queues: Any) -> Table:
    """Return a table of the workers: where they listen, how busy they are, what they did."""
    table = Table("worker", "queue", "runs", "at once", "done", "up", title="Workers")
    for name in sorted(stats):
        up = timedelta(seconds=stats[name]["uptime"])
        table.add_row(
            name,
            ", ".join(queue["name"] for queue in queues.get(name, ())),
            str(len(active.get(name, ()))),
            str(stats[name]["pool"]["max-concurrency"]),
            str(sum(stats[name]["total"].values())),
            str(up),
        )
    return table


def queues_table(waiting: dict[str, int], queues: Any) -> Table:
    """Return a table of the queues: how many jobs wait, how many workers take them."""
    takers = Counter(queue["name"] for listed in queues.values() for queue in listed)
    table = Table("queue", "waiting", "workers", title="Queues")
    for queue, count in sorted(waiting.items()):
        table.add_row(queue, str(count), str(takers[queue]))
    return table


def jobs_table(active: Any) -> Table:
    """Return a table of the jobs that run, the longest first."""
    table = Table(
        Column("job", overflow="fold"),
        Column("task", overflow="fold"),
        "arguments",
        "for",
        "worker",
        title="Jobs that run",
    )
    jobs = [(job.get("time_start") or time(), name, job) for name in active for job in active[name]]
    for start, name, job in sorted(jobs, key=lambda entry: entry[0]):
        arguments = str(job["args"])[:ARGUMENTS_SHOWN]
        table.add_row(job["id"], job["name"], arguments, f"{time() - start:.1f} s", name)
    return table


if __name__ == "__main__":
    run(inspect)
