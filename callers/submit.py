"""`python -m callers.submit add.tasks.add 4 6`: submit any job, now or for later, by its name."""

import json
from datetime import datetime
from typing import Any

import click
from celery.exceptions import QueueNotFound

from callers.client import Client
from callers.command import NEGATIVE_NUMBERS, read_int, run


def value(text: str) -> Any:
    """Return what a text stands for as JSON, or the text itself where it is none."""
    for read in (read_int, json.loads):  # json reads no integer of more than 4300 digits
        try:
            return read(text)
        except ValueError:
            continue
    return text


def arguments(words: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the named arguments that words such as 4 and x=4 stand for."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        if equals and name.isidentifier():
            kwargs[name] = value(rest)
        else:
            args.append(value(word))
    return args, kwargs


@click.command(context_settings=NEGATIVE_NUMBERS)
@click.argument("task")
@click.argument("words", nargs=-1, metavar="[ARGUMENT]...")
@click.option("--countdown", type=float, metavar="SECONDS", help="Run it after so many seconds.")
@click.option("--eta", metavar="TIME", help="Run it at this time: 2026-12-31T23:59, UTC.")
@click.option("--expires", type=float, metavar="SECONDS", help="Not after so many seconds.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="End it after so many seconds.")
@click.option(
    "--soft-time-limit", type=float, metavar="SECONDS", help="Warn the task after so many seconds."
)
@click.option("--priority", metavar="LEVEL", help="high, normal or low.")
@click.option("--queue", help="Another queue than the task's own.")
def submit(
    task: str,
    words: tuple[str, ...],
    countdown: float | None,
    eta: str | None,
    expires: float | None,
    time_limit: float | None,
    soft_time_limit: float | None,
    priority: str | None,
    queue: str | None,
) -> None:
    """Submit a job of TASK and print its id, with which callers.result fetches the result.

    An argument is JSON or plain text; one such as seconds=2 is given by name.
    """
    args, kwargs = arguments(words)
    options = {
        "countdown": countdown,
        "eta": moment(eta),
        "expires": expires,
        "time_limit": time_limit,
        "soft_time_limit": soft_time_limit,
        "priority": value(priority) if priority else None,
        "queue": queue,
    }
    given: dict[str, Any] = {name: option for name, option in options.items() if option is not None}
    with Client() as client:
        try:
            result = client.submit(client.signature(task, *args, **kwargs).set(**given))
        except QueueNotFound:
            queues = ", ".join(sorted(client.app.amqp.queues))
            raise click.UsageError(f"no queue is called {queue!r}; there are {queues}") from None
        except (ValueError, TypeError) as error:  # of the options, as cluster.options says
            raise click.UsageError(str(error)) from None
        click.echo(result.id)


def moment(eta: str | None) -> datetime | str | None:
    """Return a time as a datetime, or as the text it is: cluster.options says what is wrong."""
    try:
        return datetime.fromisoformat(eta) if eta else None
    except ValueError:
        return eta


if __name__ == "__main__":
    run(submit)
