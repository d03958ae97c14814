"""`python -m callers.canvas`: Celery's ways to put jobs together, an example each, on the cluster.

Each example is a function of a client that returns a value; its docstring says what it shows.
"""

from collections.abc import Callable
from typing import Any

import click
from celery import chain, chord, chunks, group, xmap, xstarmap
from celery.utils import uuid

from callers.client import Client
from callers.command import run, timeout_option

Example = Callable[[Client, float], Any]


def add(client: Client, *args: int) -> Any:
    """Return the signature of a sum; what is left out comes from the job before."""
    return client.signature("add.tasks.add", *args)


def chain_(client: Client, timeout: float) -> Any:
    """Each value is the next job's first argument: 2 + 2, + 4, + 8."""
    return client.call(chain(add(client, 2, 2), add(client, 4), add(client, 8)), timeout=timeout)


def group_(client: Client, timeout: float) -> Any:
    """Jobs side by side, their values in order: i + i for i from 0 to 9."""
    return client.call(group(add(client, i, i) for i in range(10)), timeout=timeout)


def chord_(client: Client, timeout: float) -> Any:
    """A callback that gets all values of a group: the sum of i + i for i from 0 to 9."""
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
    """Ten calls in jobs of four, four and two: i + i for i from 0 to 9."""
    return client.call(chunks(add(client), [(i, i) for i in range(10)], 4), timeout=timeout)


def link(client: Client, timeout: float) -> Any:
    """A callback gets the value of the job it is linked to: 4 + 6, then + 10."""
    callback_id = uuid()
    client.submit(add(client, 4, 6).set(link=add(client, 10).set(task_id=callback_id)))
    return client.get(client.app.AsyncResult(callback_id), timeout=timeout)


def link_error(client: Client, timeout: float) -> Any:
    """An error callback gets the id of the job that failed, here with a text for a number."""
    callback_id = uuid()
    callback = client.signature("add.tasks.error_of").set(task_id=callback_id)
    client.submit(client.signature("add.tasks.add", "four", 6).set(link_error=callback))
    return client.get(client.app.AsyncResult(callback_id), timeout=timeout)


def nested(client: Client, timeout: float) -> Any:
    """A chord of chains, and a job after it: (1 + 1 + 1) + (2 + 2 + 2), + 10."""
    header = [chain(add(client, i, i), add(client, i)) for i in (1, 2)]
    both = chord(header, client.signature("add.tasks.tsum"))
    return client.call(chain(both, add(client, 10)), timeout=timeout)


def families_chain(client: Client, timeout: float) -> Any:
    """A chain across families: (2 + 3)!, by the workers of add and of factorial."""
    factorial = client.signature("factorial.tasks.factorial")
    return client.call(chain(add(client, 2, 3), factorial), timeout=timeout)


def families_chord(client: Client, timeout: float) -> Any:
    """A chord across families: 1! + 2! + … + 10!, by the workers of factorial and of add."""
    header = group(client.signature("factorial.tasks.factorial", n) for n in range(1, 11))
    return client.call(chord(header, client.signature("add.tasks.tsum")), timeout=timeout)


#: The examples by the names a person types.
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
    """Run examples of Celery's canvas, all of them if none is named, and print their values."""
    with Client() as client:
        for name in names or EXAMPLES:
            click.echo(f"{name}: {EXAMPLES[name].__doc__}")
            click.echo(f"    {EXAMPLES[name](client, timeout)}")


if __name__ == "__main__":
    run(canvas)
