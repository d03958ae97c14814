"""What the callers' commands share: numbers as arguments, the timeout, errors in one line."""

import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EPIPE
from functools import wraps
from typing import Any

import click
import gmpy2
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from callers.arrays import written
from callers.client import TIMEOUT, Client, check_timeout
from celery_streams.printable import printable

#: Told how much is done, and of how much in all.
Progressed = Callable[[int, int], object]

#: A terminal shows an array of more elements than this by its corners.
ELEMENTS_IN_FULL = 64
#: A whole number as Python writes it: a sign, and digits with single underscores between.
_INTEGER = re.compile(r"[+-]?[0-9]+(_[0-9]+)*")


class Number(click.ParamType[int | float | complex]):
    """An int of any size, a float or a complex number, as Python writes them."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float | complex:
        """Return the number that a text stands for."""
        for read in (read_int, float, complex):
            try:
                return read(value)
            except ValueError:
                continue
        return self.fail(f"{value!r} is not a number", param, ctx)


class WholeNumber(click.ParamType[int]):
    """An int of any size."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the int that a text stands for."""
        try:
            return read_int(value)
        except ValueError:
            return self.fail(f"{value!r} is not a whole number", param, ctx)


class Seconds(click.ParamType[float]):
    """A time to wait: more than nothing, and not for ever."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the time in seconds that a text stands for."""
        try:
            return check_timeout(float(value))
        except ValueError:
            return self.fail(f"{value!r} is not a time in seconds above zero", param, ctx)


def read_int(text: str) -> int:
    """Return the int of any size that a text stands for; raises ValueError for any other."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(text)
    # Python's int() refuses more than 4300 digits, and takes a time that is quadratic in them.
    return int(gmpy2.mpz(text.replace("_", "").removeprefix("+")))


def text(value: Any) -> str:
    """Return a value as text, an int with all its digits, in a list or alone."""
    if isinstance(value, list):
        return f"[{', '.join(map(text, value))}]"
    # str() refuses more than 4300 digits, too.
    return gmpy2.mpz(value).digits() if type(value) is int else str(value)


def seconds_option(name: str, default: float, help_: str) -> Callable[..., Any]:
    """Return an option that takes a time in seconds."""
    return click.option(
        name,
        type=Seconds(),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=help_,
    )


def show(value: Any, most: int | None = None) -> None:
    """Print a value; of an array with more than `most` elements the corners."""
    if hasattr(value, "ndim"):
        for piece in written(value, most):
            click.echo(piece, nl=False)
        click.echo()
    else:
        # A pipe gets what the job gave, byte for byte.
        shown = text(value)
        is_terminal = sys.stdout.isatty()
        click.echo(printable(shown, keep="\n\t") if is_terminal else shown, color=True)


timeout_option = seconds_option("--timeout", TIMEOUT, "How long to wait for the result.")

#: Lets a negative number be an argument: it begins like an option.
NEGATIVE_NUMBERS = {"ignore_unknown_options": True}


def ask(task: str, *args: Any, timeout: float) -> Any:
    """Return the value of a job; on a terminal, show that and how long it is waited for.

    And how much of a large argument has been sent, or of a large value fetched.
    """
    with waiting_shown(task) as on_transfer, Client(on_transfer=on_transfer) as client:
        return client.call(task, *args, timeout=timeout)


@contextmanager
def waiting_shown(task: str) -> Iterator[Progressed | None]:
    """Show on a terminal that a job is waited for; give what shows its bytes on their way."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    waiting = Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    waiting.add_task(f"waiting for {task}", total=None)
    bytes_ = Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = bytes_.add_task("", visible=False)
    before = 0

    def on_transfer(done: int, total: int) -> None:
        nonlocal before
        if done <= before:  # the next value
            bytes_.reset(bar)
        before = done if done < total else 0
        bytes_.update(bar, completed=done, total=total, visible=done < total)

    with Live(Group(waiting, bytes_), console=Console(stderr=True), transient=True):
        yield on_transfer


@contextmanager
def parts_shown(what: str) -> Iterator[Progressed | None]:
    """Show on a terminal how many parts of a job have come; give what is told of each."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def run(command: Callable[..., Any]) -> None:
    """Run a click command: 0 done, 1 the job failed or got no result, 2 wrong usage.

    An error is one line on stderr, `error: …`, and never a traceback.
    """
    command.callback = _guarded(command.callback)  # type: ignore[attr-defined]  # of click
    try:
        command(standalone_mode=False)
        if sys.stdout is not None:  # closed by the shell: >&-
            sys.stdout.flush()
    except _Failed as failed:
        _end(_sentence(failed.error), 1)
    except BrokenPipeError:  # whoever reads has seen enough
        _drop_output()
        sys.exit(1)
    except click.exceptions.Abort:
        _end("stopped", 130)
    except click.UsageError as error:
        _end(f"{error.format_message()} (--help tells more)", error.exit_code)
    except Exception as error:  # noqa: BLE001 - a job may raise anything at its worker
        _end(_sentence(error), 1)


class _Failed(Exception):
    """An error that click would take for one of its own: some of these end a command well."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def _guarded(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command's function, whose errors are those of a job if they look like click's."""

    @wraps(callback)
    def guarded(*args: Any, **options: Any) -> Any:
        try:
            return callback(*args, **options)
        except click.UsageError:
            raise
        except (EOFError, click.ClickException, click.exceptions.Exit, click.Abort) as error:
            raise _Failed(error) from error
        except OSError as error:
            if error.errno != EPIPE or _is_read():
                raise _Failed(error) from error
            raise

    return guarded


def _is_read() -> bool:
    """Return True unless what is printed goes to a pipe that no process reads any more."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    events = select.poll()
    events.register(output, 0)  # an error is told in any case
    return not any(event & select.POLLERR for _, event in events.poll(0))


def _sentence(error: Exception) -> str:
    if isinstance(error, KeyError):  # its text is the bare key: a task or a queue not known
        return f"{type(error).__name__}: {error.args[0] if error.args else ''}"
    if isinstance(error, TimeLimitExceeded | SoftTimeLimitExceeded):  # their text is their repr
        kind = "soft time limit" if isinstance(error, SoftTimeLimitExceeded) else "time limit"
        limit = f" of {error.args[0]:g} s" if error.args else ""
        return f"{type(error).__name__}: the job ran for longer than its {kind}{limit}"
    return str(error) or type(error).__name__


def _drop_output() -> None:
    """Have Python's last flush go nowhere: where the output is full or closed it would fail."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(message: str, status: int) -> None:
    _drop_output()
    click.echo(f"error: {printable(' '.join(message.split()))}", err=True)
    sys.exit(status)
