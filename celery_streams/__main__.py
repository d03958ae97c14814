"""`python -m celery_streams dead`: look at the dead letters of queues, replay or drop them."""

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
from celery_streams.dead_letters import Letter
from celery_streams.errors import ClusterError
from celery_streams.printable import printable
from celery_streams.transport import keys
from celery_streams.transport.channel import Channel

#: The module that says where the broker is, where no app is named: Celery's own name for it.
CONFIGURATION = "celeryconfig"
#: A person waits: seconds that Redis has to answer, and two tries.
PATIENCE = {
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "max_retries": 1,
    "interval_start": 0.1,
}

TITLES = ("ID", "QUEUE", "TIME", "TASK", "JOB", "DELIVERIES", "REASON")
#: Letters that share the widths of their columns.
PAGE = 100


class Cluster(NamedTuple):
    """What the commands work on."""

    redis: Any
    results: Any
    steps: tuple[int, ...]
    #: What all keys begin with; the names of queues here, too.
    prefix: str = ""
    #: The queues that are configured.
    queues: frozenset[str] = frozenset()

    def queue(self, name: str) -> str:
        """Return a queue's name with the prefix, which a person may leave out."""
        return name if name.startswith(self.prefix) else self.prefix + name


@click.group()
def main() -> None:
    """Look after Celery's queues on Redis Streams."""


@main.group()
def dead() -> None:
    """Look at dead letters, replay them, drop them.

    A dead letter is the message of a job that no worker can do: it was delivered too often, it
    cannot be read, or no worker knows its task. Its caller got an error; the message is kept.

    What to do: `list` them, `show` one, mend what is wrong, then `replay` it: the job runs again
    under its old id. Or `drop` it.
    """


def _on_cluster(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where the letters are."""
    for option in (
        click.option(
            "--result-backend",
            envvar="CELERY_RESULT_BACKEND",
            metavar="URL",
            help="Where results are stored.  [default: as configured]",
        ),
        click.option(
            "--broker-url",
            envvar="CELERY_BROKER_URL",
            metavar="URL",
            help="The Redis of the queues.  [default: as configured]",
        ),
        click.option(
            "-A",
            "--app",
            metavar="APP",
            help="The Celery app whose configuration holds, as in `celery -A`.  "
            f"[default: the module {CONFIGURATION}, if there is one]",
        ),
    ):
        command = option(command)
    return command


@dead.command("list")
@click.argument("queue", required=False)
@_on_cluster
def list_(queue: str | None, **where: str | None) -> None:
    """Show the dead letters, of one QUEUE or of all: one line each, the oldest of a queue first."""
    with _cluster(**where) as cluster:
        if queue:
            _check_queue(cluster, queue)
        found = dead_letters.letters(cluster.redis, queue and cluster.queue(queue))
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
        where_there = f" in the queue {printable(queue)}" if queue else ""
        click.echo(f"there are no dead letters{where_there}", err=True)


@dead.command()
@click.argument("letter_id", metavar="ID")
@_on_cluster
def show(letter_id: str, **where: str | None) -> None:
    """Show all of one dead letter: why it died, and its message.

    The body is decoded if it is JSON. An ID is the first word of its line in `list`.
    """
    _check_ids([letter_id])
    with _cluster(**where) as cluster:
        letter = dead_letters.show(cluster.redis, letter_id)
    for title, cell in zip(TITLES, _row(letter), strict=True):
        click.echo(f"{title.lower()}: {cell}")
    if not letter.envelope:
        click.echo(f"message: {letter.message!a}")
        return
    around = {name: value for name, value in letter.envelope.items() if name != "body"}
    click.echo(f"message: {_json(around)}")
    click.echo(f"body: {_json(letter.body)}")


@dead.command()
@click.argument("which", nargs=-1, metavar="ID... | --all [QUEUE]...")
@click.option("--all", "is_all", is_flag=True, help="All of them, or all of the QUEUEs named.")
@_on_cluster
def replay(which: tuple[str, ...], is_all: bool, **where: str | None) -> None:
    """Put dead letters back into their queues: the jobs run again, under their old ids.

    Mend first what they died of. The failure that the caller got is forgotten: who asks for the
    result again waits for the new one. Deliveries are counted anew.
    """
    with _cluster(**where) as cluster:

        def act(letter: Letter) -> None:
            dead_letters.replay(cluster.redis, letter, cluster.results, cluster.steps)

        _do("replayed", act, cluster.redis, _chosen(cluster, which, is_all=is_all))


@dead.command()
@click.argument("which", nargs=-1, metavar="ID... | --all QUEUE...")
@click.option("--all", "is_all", is_flag=True, help="All of the QUEUEs named.")
@_on_cluster
def drop(which: tuple[str, ...], is_all: bool, **where: str | None) -> None:
    """Remove dead letters for good. Their jobs stay failed."""
    if is_all and not which:
        raise click.UsageError("Name the queues that are to lose all their dead letters.")
    with _cluster(**where) as cluster:

        def act(letter: Letter) -> None:
            dead_letters.drop(cluster.redis, letter)

        _do("dropped", act, cluster.redis, _chosen(cluster, which, is_all=is_all))


def _chosen(cluster: Cluster, which: tuple[str, ...], *, is_all: bool) -> Iterator[str]:
    """Yield the ids of the letters that were chosen; raises UsageError before the first."""
    if not is_all:
        if not which:
            raise click.UsageError("Name dead letters by their ids, or say --all.")
        _check_ids(which)
        yield from which
        return
    for name in which:
        with suppress(ValueError):
            dead_letters.split(name)
            raise click.UsageError(f"With --all, name queues; {name} is one dead letter.")
    for name in which:
        _check_queue(cluster, name)
    for queue in map(cluster.queue, which) if which else (None,):
        for letter in dead_letters.letters(cluster.redis, queue):
            yield letter.id


def _check_queue(cluster: Cluster, name: str) -> None:
    """Raise UsageError for a queue that is not configured, and of which Redis has nothing."""
    queue = cluster.queue(name)
    if name in cluster.queues or queue.removeprefix(cluster.prefix) in cluster.queues:
        return
    streams = [keys.stream(queue, step) for step in cluster.steps]
    if not cluster.redis.exists(queue, keys.dead(queue), keys.delayed(queue), *streams):
        known = ", ".join(sorted(cluster.queues)) or "none is configured"
        raise click.UsageError(f"There is no queue {printable(name)[:80]}; there are: {known}.")


def _do(done: str, act: Callable[[Letter], None], redis: Any, ids: Iterable[str]) -> None:
    """Do the same to many letters, and go on where it fails for one; exit with 1 if it did."""
    is_failed, count = False, 0
    for count, letter_id in enumerate(ids, 1):  # noqa: B007 - how many there were
        try:
            letter = dead_letters.show(redis, letter_id)
            act(letter)
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
def _cluster(
    app: str | None, broker_url: str | None, result_backend: str | None
) -> Iterator[Cluster]:
    """Connect to the broker of an app, or of the configuration; raises ClusterError."""
    for name, value in (
        ("CELERY_BROKER_URL", broker_url),
        ("CELERY_RESULT_BACKEND", result_backend),
    ):
        if value:
            os.environ[name] = value  # where Celery looks first, and the configuration, too
    celery = _app(app)
    if not (celery.conf.broker_write_url or celery.conf.broker_url):
        raise ClusterError("no broker is configured: name --app or --broker-url")
    options = celery.conf.broker_transport_options
    steps = tuple(options.get("priority_steps") or dead_letters.PRIORITY_STEPS)
    with celery.connection_for_write(transport_options=PATIENCE) as connection:
        broker = sanitize_url(celery.conf.broker_write_url)
        if connection.transport.driver_type != "redis":
            raise ClusterError(f"the broker {broker} is no Redis, and keeps its own dead letters")
        try:
            channel: Any = connection.default_channel
            # Kombu's own would add the prefix to some of the keys, in some of the commands.
            redis = channel.plain_client if isinstance(channel, Channel) else channel.client
            prefix = getattr(channel, "global_keyprefix", "")
            yield Cluster(redis, celery.backend, steps, prefix, _queues(celery))
        except ResponseError as error:
            raise ClusterError(f"the Redis of {broker} refuses: {error}") from None
        except (OSError, RedisError, OperationalError) as error:
            if any(isinstance(each, AuthenticationError) for each in (error, error.__cause__)):
                raise ClusterError(f"the Redis of {broker} refuses the password: {error}") from None
            raise ClusterError(f"cannot reach the Redis of {broker}: {error}") from None


def _queues(app: Any) -> frozenset[str]:
    """Return the names of an app's queues; without settings of theirs, there is the default one."""
    return frozenset(app.amqp.queues)


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
    # Celery prefers the variable to the configuration, which may say more of the same store.
    store = getattr(configuration, "result_backend", None)
    app: Celery[Any] = Celery("streams", backend=store, set_as_current=False)
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
    except (ValueError, TypeError, RecursionError):  # among them bytes
        return ascii(value)


def run(command: Callable[..., Any]) -> None:
    """Run a click command: 0 done, 1 failed, 2 wrong usage; an error is one line on stderr."""
    try:
        command(standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except click.exceptions.Abort:
        _end("stopped", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.UsageError as error:
        _end(f"{error.format_message()} (--help tells more)", error.exit_code)
    except Exception as error:  # noqa: BLE001 - a configuration may raise anything
        _end(str(error) or type(error).__name__, 1)


def _end(message: str, status: int) -> None:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    run(main)
