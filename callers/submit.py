"""`python -m callers.submit add.tasks.add 4 6`: submit a job of any task, now or for later."""

import json
from datetime import datetime
from typing import Any

import click
from celery.exceptions import QueueNotFound

from callers.client import Client
from callers.command import NEGATIVE_NUMBERS, parse_int
from celery_streams.cli import run


def parse_value(text: str) -> Any:
    """Return the value of `text` as JSON, or `text` itself if it is not JSON."""
    for parse in (parse_int, json.loads):  # json refuses integers of more than 4300 digits
        try:
            return parse(text)
        except ValueError:
            continue
    return text


def parse_arguments(words: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the named arguments in words such as 4 and x=4."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        if equals and name.isidentifier():
            kwargs[name] = parse_value(rest)
        else:
            args.append(parse_value(word))
    return args, kwargs


@click.command(context_settings=NEGATIVE_NUMBERS)
@click.argument("task")
@click.argument("words", nargs=-1, metavar="[ARGUMENT]...")
@click.option("--countdown", type=float, metavar="SECONDS", help="Run the job after this delay.")
@click.option("--eta", metavar="TIME", help="Run it at this time (UTC), e.g. 2026-12-31T23:59.")
@click.option("--expires", type=float, metavar="SECONDS", help="Drop the job if it waits longer.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="Kill the job if it runs longer.")
@click.option(
    "--soft-time-limit", type=float, metavar="SECONDS", help="Interrupt the task if it runs longer."
)
@click.option("--priority", metavar="LEVEL", help="high, normal or low.")
@click.option("--queue", help="Queue to use instead of the task's own.")
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
    """Submit a job of TASK and print its id, for callers.result to fetch the result.

    An argument is JSON or plain text; one such as seconds=2 is passed by name.
    """
    args, kwargs = parse_arguments(words)
    options = {
        "countdown": countdown,
        "eta": parse_eta(eta),
        "expires": expires,
        "time_limit": time_limit,
        "soft_time_limit": soft_time_limit,
        "priority": parse_value(priority) if priority else None,
        "queue": queue,
    }
    given: dict[str, Any] = {name: option for name, option in options.items() if option is not None}
    with Client() as client:
        try:
            result = client.submit(client.signature(task, *args, **kwargs).set(**given))
        except QueueNotFound:
            queues = ", ".join(sorted(client.app.amqp.queues))
            raise click.UsageError(f"unknown queue {queue!r}; the queues are {queues}") from None
        except (ValueError, TypeError) as error:  # raised by cluster.options, callers.contracts
            raise click.UsageError(str(error)) from None
        click.echo(result.id)


def parse_eta(eta: str | None) -> datetime | str | None:
    """Return a time as a datetime; if it is not one, unchanged, for cluster.options to reject."""
    try:
        return datetime.fromisoformat(eta) if eta else None
    except ValueError:
        return eta


if __name__ == "__main__":
    run(submit)
