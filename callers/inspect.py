"""`python -m callers.inspect`: how long the queues are, and what all workers do."""

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
from callers.command import run, seconds_option
from celery_streams.printable import printable
from celery_streams.transport.channel import Channel
from celery_streams.transport.queues import Lengths

#: Columns of the tables in a pipe.
PIPE_WIDTH = 200
#: Characters of a job's arguments that the table shows.
ARGUMENTS_SHOWN = 40


@click.command()
@seconds_option("--timeout", 1.0, "How long workers have to answer.")
def inspect(timeout: float) -> None:
    """Show the queues, all workers and the jobs that run.

    How long the queues are, Redis knows, whether workers run or not; of the rest workers tell, as
    they do `celery inspect stats`, `active` and `active_queues`.
    """
    with Client() as client:
        client.connect()
        lengths = {queue: lengths_of(client, queue) for queue in client.app.amqp.queues}
        workers = client.app.control.inspect(timeout=timeout)
        stats = workers.stats() or {}
        active, queues = (
            (workers.active() or {}, workers.active_queues() or {}) if stats else ({}, {})
        )
    # A pipe has no width: nothing is cut there.
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(queues_table(lengths, queues or {}))
    if not stats:
        click.echo(f"no worker answers within {timeout:g} s", err=True)
        return
    console.print(workers_table(stats, active or {}, queues or {}))
    console.print(jobs_table(active or {}))


def lengths_of(client: Client, queue: str) -> Lengths:
    """Return how many jobs of a queue wait, are delayed, run, and are dead letters."""
    with client.app.connection_or_acquire() as connection:
        channel = connection.default_channel
        if isinstance(channel, Channel):
            return channel.queues.lengths(queue)
        try:
            declared: Any = client.app.amqp.queues[queue].bind(channel)
            return Lengths(int(declared.queue_declare(passive=True).message_count))
        except ChannelError:  # the broker has no queue of this name: it is empty
            return Lengths(0)


def workers_table(stats: Any, active: Any, queues: Any) -> Table:
    """Return a table of the workers: where they listen, how busy they are, what they did."""
    table = Table("worker", "queue", "runs", "at once", "done", "up", title="Workers")
    for name in sorted(stats):
        up = timedelta(seconds=stats[name]["uptime"])
        runs = len(active.get(name, ()))
        table.add_row(
            _text(name),
            _text(", ".join(queue["name"] for queue in queues.get(name, ()))),
            str(runs),
            str(stats[name]["pool"]["max-concurrency"]),
            # Celery counts a job when it begins.
            str(max(sum(stats[name]["total"].values()) - runs, 0)),
            str(up),
        )
    return table


def queues_table(lengths: dict[str, Lengths], queues: Any) -> Table:
    """Return a table of the queues: what becomes of their jobs, how many workers take them."""
    takers = Counter(queue["name"] for listed in queues.values() for queue in listed)
    table = Table("queue", "waiting", "delayed", "running", "dead", "workers", title="Queues")
    for queue, counts in sorted(lengths.items()):
        shown = ("-" if count is None else str(count) for count in counts)
        table.add_row(queue, *shown, str(takers[queue]))
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
        shown = (job["id"], job["name"], str(job["args"])[:ARGUMENTS_SHOWN])
        table.add_row(*map(_text, shown), f"{time() - start:.1f} s", _text(name))
    return table


def _text(value: Any) -> Text:
    """Return what others named as it is: without markup, and without a terminal's commands."""
    return Text(printable(str(value)))


if __name__ == "__main__":
    run(inspect)
