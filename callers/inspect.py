"""`python -m callers.inspect`: show the queues and what all workers are running."""

import sys
from collections import Counter
from datetime import timedelta
from time import time
from typing import Any

import click
from kombu.exceptions import ChannelError
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from callers.client import Client
from callers.command import seconds_option
from celery_streams.cli import run
from celery_streams.printable import printable
from celery_streams.transport.channel import Channel
from celery_streams.transport.queues import Lengths

#: Width of the tables in a pipe, in characters.
PIPE_WIDTH = 200
#: Characters shown of a job's arguments.
MAX_ARGUMENTS_WIDTH = 40


@click.command()
@seconds_option("--timeout", 1.0, "How long to wait for workers to answer.")
def inspect(timeout: float) -> None:
    """Show the queues, all workers and the running jobs.

    Queue lengths come from the broker, even if no worker runs; the rest comes from the workers, as
    in `celery inspect stats`, `active` and `active_queues`.
    """
    with Client() as client:
        client.connect()
        lengths = {queue: lengths_of(client, queue) for queue in client.app.amqp.queues}
        workers = client.app.control.inspect(timeout=timeout)
        stats = workers.stats() or {}
        active, queues = (
            (workers.active() or {}, workers.active_queues() or {}) if stats else ({}, {})
        )
    # A pipe has no width: rich would cut the tables at its default.
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(queues_table(lengths, queues or {}))
    if not stats:
        click.echo(f"no worker answered within {timeout:g} s", err=True)
        return
    console.print(workers_table(stats, active or {}, queues or {}))
    console.print(jobs_table(active or {}))


def lengths_of(client: Client, queue: str) -> Lengths:
    """Return how many jobs of a queue are waiting, delayed, running and dead-lettered."""
    with client.app.connection_or_acquire() as connection:
        channel = connection.default_channel
        if isinstance(channel, Channel):
            return channel.queues.lengths(queue)
        try:
            declared: Any = client.app.amqp.queues[queue].bind(channel)
            return Lengths(int(declared.queue_declare(passive=True).message_count))
        except ChannelError:  # the queue has not been declared: it is empty
            return Lengths(0)


def workers_table(stats: Any, active: Any, queues: Any) -> Table:
    """Return a table of the workers: their queues, running jobs, concurrency and totals."""
    table = Table("worker", "queue", "running", "concurrency", "done", "uptime", title="Workers")
    for name in sorted(stats):
        uptime = timedelta(seconds=stats[name]["uptime"])
        running = len(active.get(name, ()))
        table.add_row(
            _text(name),
            _text(", ".join(queue["name"] for queue in queues.get(name, ()))),
            str(running),
            str(stats[name]["pool"]["max-concurrency"]),
            # Celery's total includes the running jobs.
            str(max(sum(stats[name]["total"].values()) - running, 0)),
            str(uptime),
        )
    return table


def queues_table(lengths: dict[str, Lengths], queues: Any) -> Table:
    """Return a table of the queues: their jobs by state, and the number of their workers."""
    workers = Counter(queue["name"] for listed in queues.values() for queue in listed)
    table = Table("queue", "waiting", "delayed", "running", "dead", "workers", title="Queues")
    for queue, counts in sorted(lengths.items()):
        cells = ("-" if count is None else str(count) for count in counts)
        table.add_row(queue, *cells, str(workers[queue]))
    return table


def jobs_table(active: Any) -> Table:
    """Return a table of the running jobs, the oldest first."""
    table = Table(
        Column("job", overflow="fold"),
        Column("task", overflow="fold"),
        "arguments",
        "running for",
        "worker",
        title="Running jobs",
    )
    jobs = [(job.get("time_start") or time(), name, job) for name in active for job in active[name]]
    for start, name, job in sorted(jobs, key=lambda entry: entry[0]):
        cells = (job["id"], job["name"], str(job["args"])[:MAX_ARGUMENTS_WIDTH])
        table.add_row(*map(_text, cells), f"{time() - start:.1f} s", _text(name))
    return table


def _text(value: Any) -> Text:
    """Return untrusted text without markup and terminal escape sequences."""
    return Text(printable(str(value)))


if __name__ == "__main__":
    run(inspect)
