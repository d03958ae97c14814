"""`python -m callers.canvas`: run an example of each of Celery's canvas primitives.

Each example is a function that takes a client and returns a value; its docstring is printed.
"""

from collections.abc import Callable
from typing import Any

import click
from celery import chain, chord, chunks, group, xmap, xstarmap
from celery.utils import uuid

from callers.client import Client
from callers.command import timeout_option
from celery_streams.cli import run

Example = Callable[[Client, float], Any]


def add(client: Client, *args: int) -> Any:
    """Return the signature of a sum; a missing argument is the previous job's result."""
    return client.signature("add.tasks.add", *args)


def chain_(client: Client, timeout: float) -> Any:
    """Each result is the next job's first argument: 2 + 2, + 4, + 8."""
    return client.call(chain(add(client, 2, 2), add(client, 4), add(client, 8)), timeout=timeout)


def group_(client: Client, timeout: float) -> Any:
    """Jobs in parallel, with their results in order: i + i for i from 0 to 9."""
    return client.call(group(add(client, i, i) for i in range(10)), timeout=timeout)


def chord_(client: Client, timeout: float) -> Any:
    """A callback that receives the results of a group: the sum of i + i for i from 0 to 9."""
    header = group(add(client, i, i) for i in range(10))
    return client.call(chord(header, client.signature("add.tasks.tsum")), timeout=timeout)


def map_(client: Client, timeout: float) -> Any:
    """One job that calls a task with each item: the sums of three lists."""
    lists = [[1, 2], [3, 4], [5, 6]]
    tsum: Any = client.signature("add.tasks.tsum")
    return client.call(xmap(tsum, lists), timeout=timeout)


def starmap_(client: Client, timeout: float) -> Any:
    """One job that calls a task with each tuple of arguments: three sums."""
    return client.call(xstarmap(add(client), [(1, 2), (3, 4), (5, 6)]), timeout=timeout)


def chunks_(client: Client, timeout: float) -> Any:
    """Ten calls, split into jobs of four, four and two: i + i for i from 0 to 9."""
    return client.call(chunks(add(client), [(i, i) for i in range(10)], 4), timeout=timeout)


def link(client: Client, timeout: float) -> Any:
    """A callback receives the result of the job it is linked to: 4 + 6, then + 10."""
    callback_id = uuid()
    client.submit(add(client, 4, 6).set(link=add(client, 10).set(task_id=callback_id)))
    return client.get(client.app.AsyncResult(callback_id), timeout=timeout)


def link_error(client: Client, timeout: float) -> Any:
    """An error callback receives the id of the failed job, here a sum that no float can hold."""
    callback_id = uuid()
    callback = client.signature("add.tasks.error_of").set(task_id=callback_id)
    client.submit(client.signature("add.tasks.add", 10**400, 0.5).set(link_error=callback))
    return client.get(client.app.AsyncResult(callback_id), timeout=timeout)


def nested(client: Client, timeout: float) -> Any:
    """A chord of chains, followed by a job: (1 + 1 + 1) + (2 + 2 + 2), + 10."""
    header = [chain(add(client, i, i), add(client, i)) for i in (1, 2)]
    both = chord(header, client.signature("add.tasks.tsum"))
    return client.call(chain(both, add(client, 10)), timeout=timeout)


def families_chain(client: Client, timeout: float) -> Any:
    """A chain across families: (2 + 3)!, on the add and factorial workers."""
    factorial = client.signature("factorial.tasks.factorial")
    return client.call(chain(add(client, 2, 3), factorial), timeout=timeout)


def families_chord(client: Client, timeout: float) -> Any:
    """A chord across families: 1! + 2! + … + 10!, on the factorial and add workers."""
    header = group(client.signature("factorial.tasks.factorial", n) for n in range(1, 11))
    return client.call(chord(header, client.signature("add.tasks.tsum")), timeout=timeout)


#: Examples by their names on the command line.
EXAMPLES: dict[str, Example] = {
    "chain": chain_,
    "group": group_,
    "chord": chord_,
    "map": map_,
    "starmap": starmap_,
    "chunks": chunks_,
    "link": link,
    "link_error": link_error,
    "nested": nested,
    "families_chain": families_chain,
    "families_chord": families_chord,
}


@click.command(epilog=f"The examples: {', '.join(EXAMPLES)}.")
@click.argument("names", type=click.Choice(tuple(EXAMPLES)), nargs=-1, metavar="[EXAMPLE]...")
@timeout_option
def canvas(names: tuple[str, ...], timeout: float) -> None:
    """Run examples of Celery's canvas, by default all, and print their results."""
    with Client() as client:
        for name in names or EXAMPLES:
            click.echo(f"{name}: {EXAMPLES[name].__doc__}")
            click.echo(f"    {EXAMPLES[name](client, timeout)}")


if __name__ == "__main__":
    run(canvas)
