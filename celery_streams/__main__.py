"""`python -m celery_streams dead`: list, show, replay and drop dead letters."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import Any, NamedTuple

import click
from celery import Celery
from celery.app.utils import find_app
from kombu.exceptions import OperationalError
from kombu.utils.url import sanitize_url
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from celery_streams import dead_letters
from celery_streams.cli import run
from celery_streams.dead_letters import Letter
from celery_streams.errors import ClusterError, access_fault
from celery_streams.printable import printable
from celery_streams.transport import keys
from celery_streams.transport.channel import Channel

#: Celery's default configuration module, used without --app.
CONFIGURATION = "celeryconfig"
#: Short time-outs, in seconds, and one retry: a person is waiting.
TRANSPORT_OPTIONS = {
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "max_retries": 1,
    "interval_start": 0.1,
}

TITLES = ("ID", "QUEUE", "TIME", "TASK", "JOB", "DELIVERIES", "REASON")
#: Letters per page of `list`; column widths are computed for each page.
PAGE = 100


class Broker(NamedTuple):
    """A connected broker and its app's settings."""

    redis: Any
    #: The app's result backend.
    results: Any
    #: Kombu's priority steps.
    steps: tuple[int, ...]
    #: The global key prefix, which the names of dead letters' queues include.
    prefix: str = ""
    #: The names of the configured queues.
    queues: frozenset[str] = frozenset()

    def queue(self, name: str) -> str:
        """Return a queue's name with the prefix, which the user may omit."""
        return name if name.startswith(self.prefix) else self.prefix + name


@click.group()
def main() -> None:
    """Manage Celery's queues on Redis Streams."""


@main.group()
def dead() -> None:
    """List, show, replay and drop dead letters.

    A dead letter is the message of a job that no worker can process: it was delivered too often,
    it is malformed, or no worker knows its task. The caller got an error; the message is kept.

    `list` the letters, `show` one, fix the cause, then `replay` it: the job runs again under its
    id. Or `drop` it.
    """


def _broker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select the broker and the result store."""
    for option in (
        click.option(
            "--result-backend",
            envvar="CELERY_RESULT_BACKEND",
            metavar="URL",
            help="The result store.  [default: as configured]",
        ),
        click.option(
            "--broker-url",
            envvar="CELERY_BROKER_URL",
            metavar="URL",
            help="The Redis that holds the queues.  [default: as configured]",
        ),
        click.option(
            "-A",
            "--app",
            metavar="APP",
            help="The Celery app whose configuration is used, as in `celery -A`.  "
            f"[default: the module {CONFIGURATION}, if it exists]",
        ),
    ):
        command = option(command)
    return command


@dead.command("list")
@click.argument("queue", required=False)
@_broker_options
def list_(queue: str | None, **options: str | None) -> None:
    """List the dead letters of one QUEUE or of all, one per line, oldest first in each queue."""
    with _connect(**options) as broker:
        if queue is not None:
            _check_queue(broker, queue)
        found = dead_letters.letters(broker.redis, queue and broker.queue(queue))
        widths = [len(title) for title in TITLES]
        is_first = True
        while rows := [_row(letter) for letter in islice(found, PAGE)]:
            widths = [max(map(len, column)) for column in zip(*rows, _spaces(widths), strict=True)]
            if is_first:
                click.echo(_line(TITLES, widths))
            is_first = False
            for row in rows:
                click.echo(_line(row, widths))
    if is_first:
        where = f" in the queue {printable(queue)}" if queue else ""
        click.echo(f"there are no dead letters{where}", err=True)


@dead.command()
@click.argument("letter_id", metavar="ID")
@_broker_options
def show(letter_id: str, **options: str | None) -> None:
    """Show one dead letter in full: its reason and its message.

    The body is decoded if it is JSON. An ID is in the first column of `list`.
    """
    _check_ids([letter_id])
    with _connect(**options) as broker:
        letter = dead_letters.show(broker.redis, letter_id)
    for title, cell in zip(TITLES, _row(letter), strict=True):
        click.echo(f"{title.lower()}: {cell}")
    if not letter.envelope:
        click.echo(f"message: {letter.message!a}")
        return
    envelope = {name: value for name, value in letter.envelope.items() if name != "body"}
    click.echo(f"message: {_json(envelope)}")
    click.echo(f"body: {_json(letter.body)}")


@dead.command()
@click.argument("which", nargs=-1, metavar="ID... | --all [QUEUE]...")
@click.option("--all", "is_all", is_flag=True, help="Every letter, or every letter of the QUEUEs.")
@_broker_options
def replay(which: tuple[str, ...], is_all: bool, **options: str | None) -> None:
    """Publish dead letters to their queues again: the jobs run again under their ids.

    Fix the cause first. The stored failure is removed, so a caller who asks for the result waits
    for the new one. Deliveries are counted from zero.
    """
    with _connect(**options) as broker:

        def replay_one(letter: Letter) -> None:
            dead_letters.replay(broker.redis, letter, broker.results, broker.steps)

        _apply("replayed", replay_one, broker.redis, _selected(broker, which, is_all=is_all))


@dead.command()
@click.argument("which", nargs=-1, metavar="ID... | --all QUEUE...")
@click.option("--all", "is_all", is_flag=True, help="Every letter of the QUEUEs.")
@_broker_options
def drop(which: tuple[str, ...], is_all: bool, **options: str | None) -> None:
    """Remove dead letters permanently. Their jobs stay failed."""
    if is_all and not which:
        raise click.UsageError("Name the queues whose dead letters are to be dropped.")
    with _connect(**options) as broker:

        def drop_one(letter: Letter) -> None:
            dead_letters.drop(broker.redis, letter)

        _apply("dropped", drop_one, broker.redis, _selected(broker, which, is_all=is_all))


def _selected(broker: Broker, which: tuple[str, ...], *, is_all: bool) -> Iterator[str]:
    """Yield the ids of the selected letters; raises UsageError before the first."""
    if not is_all:
        if not which:
            raise click.UsageError("Give the ids of dead letters, or --all.")
        _check_ids(which)
        yield from which
        return
    for name in which:
        with suppress(ValueError):
            dead_letters.split(name)
            raise click.UsageError(f"--all takes queues; {name} is the id of one dead letter.")
    for name in which:
        _check_queue(broker, name)
    for queue in map(broker.queue, which) if which else (None,):
        for letter in dead_letters.letters(broker.redis, queue):
            yield letter.id


def _check_queue(broker: Broker, name: str) -> None:
    """Raise UsageError for a queue that is neither configured nor in Redis."""
    queue = broker.queue(name)
    if name in broker.queues or queue.removeprefix(broker.prefix) in broker.queues:
        return
    streams = [keys.stream(queue, step) for step in broker.steps]
    if not broker.redis.exists(queue, keys.dead(queue), keys.delayed(queue), *streams):
        known = ", ".join(sorted(broker.queues)) or "none"
        raise click.UsageError(f"There is no queue {printable(name)[:80]!r}; configured: {known}.")


def _apply(done: str, action: Callable[[Letter], None], redis: Any, ids: Iterable[str]) -> None:
    """Apply `action` to each letter, continuing after a failure; exit with 1 if one failed."""
    is_failed, count = False, 0
    for count, letter_id in enumerate(ids, 1):  # noqa: B007 - used after the loop
        try:
            letter = dead_letters.show(redis, letter_id)
            action(letter)
        except ClusterError as error:
            is_failed = True
            click.echo(f"error: {printable(str(error))}", err=True)
        else:
            click.echo(f"{done} {printable(letter.id)}, job {printable(letter.job_id or '-')}")
    if not count:
        click.echo("there are no dead letters", err=True)
    if is_failed:
        sys.exit(1)


def _check_ids(ids: Iterable[str]) -> None:
    for letter_id in ids:
        try:
            dead_letters.split(letter_id)
        except ValueError as error:
            raise click.UsageError(str(error)) from None


@contextmanager
def _connect(
    app: str | None, broker_url: str | None, result_backend: str | None
) -> Iterator[Broker]:
    """Connect to the broker of the app, or of the configuration; raises ClusterError."""
    for name, value in (
        ("CELERY_BROKER_URL", broker_url),
        ("CELERY_RESULT_BACKEND", result_backend),
    ):
        if value:
            os.environ[name] = value  # takes precedence for Celery and for celeryconfig
    celery = _app(app)
    if not (celery.conf.broker_write_url or celery.conf.broker_url):
        raise ClusterError("no broker is configured: name --app or --broker-url")
    options = celery.conf.broker_transport_options
    steps = tuple(options.get("priority_steps") or dead_letters.PRIORITY_STEPS)
    with celery.connection_for_write(transport_options=TRANSPORT_OPTIONS) as connection:
        url = sanitize_url(celery.conf.broker_write_url)
        if connection.transport.driver_type != "redis":
            raise ClusterError(f"the broker {url} is not Redis, and keeps its own dead letters")
        try:
            channel: Any = connection.default_channel
            # Kombu's client would prefix the keys in some commands and not in others.
            redis = channel.plain_client if isinstance(channel, Channel) else channel.client
            prefix = getattr(channel, "global_keyprefix", "")
            yield Broker(redis, celery.backend, steps, prefix, frozenset(celery.amqp.queues))
        except ResponseError as error:
            raise ClusterError(f"the Redis of {url} refuses the command: {error}") from None
        except (OSError, RedisError, OperationalError) as error:
            if any(isinstance(each, AuthenticationError) for each in (error, error.__cause__)):
                raise ClusterError(f"the Redis of {url} {access_fault(error)}") from None
            raise ClusterError(f"cannot reach the Redis of {url}: {error}") from None


def _app(name: str | None) -> Any:
    if name:
        try:
            return find_app(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ClusterError(f"cannot load the app {name}: {error}") from None
    if not find_spec(CONFIGURATION):
        plain: Celery[Any] = Celery("streams", set_as_current=False)
        plain.conf.broker_transport = "celery_streams:Transport"
        return plain
    configuration = import_module(CONFIGURATION)
    # Passed explicitly: Celery would take the plain URL of CELERY_RESULT_BACKEND over this
    # setting, which may name a backend class for the same store.
    backend = getattr(configuration, "result_backend", None)
    app: Celery[Any] = Celery("streams", backend=backend, set_as_current=False)
    app.config_from_object(configuration)
    return app


def _row(letter: Letter) -> list[str]:
    cells = (
        *(letter.id, letter.queue, letter.time, letter.task, letter.job_id),
        *(letter.deliveries, letter.reason),
    )
    return [printable(cell or "-") for cell in cells]


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _spaces(widths: Iterable[int]) -> list[str]:
    return [" " * width for width in widths]


def _json(value: Any) -> str:
    try:
        return json.dumps(value, indent=2, default=ascii)
    except (ValueError, TypeError, RecursionError):  # such as keys that are bytes
        return ascii(value)


if __name__ == "__main__":
    run(main)
