"""Shared parts of the callers' commands: number arguments, the timeout, one-line errors."""

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

from callers.arrays import format_array
from callers.client import TIMEOUT, Client, check_timeout
from celery_streams.printable import printable

#: Called with the amount done and the total.
OnProgress = Callable[[int, int], object]

#: Elements up to which a terminal shows all of an array, not only its corners.
MAX_ELEMENTS_SHOWN = 64
#: An integer in Python's notation: an optional sign, digits, single underscores between them.
_INTEGER = re.compile(r"[+-]?[0-9]+(_[0-9]+)*")


class Number(click.ParamType[int | float | complex]):
    """An int of any size, a float or a complex number, in Python's notation."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float | complex:
        """Return the number that `value` represents."""
        for parse in (parse_int, float, complex):
            try:
                return parse(value)
            except ValueError:
                continue
        return self.fail(f"{value!r} is not a number", param, ctx)


class WholeNumber(click.ParamType[int]):
    """An int of any size."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the integer that `value` represents."""
        try:
            return parse_int(value)
        except ValueError:
            return self.fail(f"{value!r} is not a whole number", param, ctx)


class Seconds(click.ParamType[float]):
    """A timeout in seconds: positive and finite."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number of seconds that `value` represents."""
        try:
            return check_timeout(float(value))
        except ValueError:
            return self.fail(f"{value!r} is not a time in seconds above zero", param, ctx)


def parse_int(text: str) -> int:
    """Return the integer of any size in `text`; raise ValueError if it is not an integer."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(text)
    # int() refuses more than 4300 digits, and takes quadratic time.
    return int(gmpy2.mpz(text.replace("_", "").removeprefix("+")))


def text(value: Any) -> str:
    """Return a value as text; integers, also in a list, with all their digits."""
    if isinstance(value, list):
        return f"[{', '.join(map(text, value))}]"
    # str() refuses more than 4300 digits, too.
    return gmpy2.mpz(value).digits() if type(value) is int else str(value)


def seconds_option(name: str, default: float, help_: str) -> Callable[..., Any]:
    """Return an option whose value is a positive number of seconds."""
    return click.option(
        name,
        type=Seconds(),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=help_,
    )


def show(value: Any, limit: int | None = None) -> None:
    """Print a value; of an array with more than `limit` elements, only the corners."""
    if hasattr(value, "ndim"):
        for piece in format_array(value, limit):
            click.echo(piece, nl=False)
        click.echo()
    else:
        # A pipe receives the text unchanged; a terminal must not run its escape sequences.
        shown = text(value)
        is_terminal = sys.stdout.isatty()
        click.echo(printable(shown, keep="\n\t") if is_terminal else shown, color=True)


timeout_option = seconds_option("--timeout", TIMEOUT, "How long to wait for the result.")

#: click settings that accept negative numbers, which look like options, as arguments.
NEGATIVE_NUMBERS = {"ignore_unknown_options": True}


def call(task: str, *args: Any, timeout: float) -> Any:
    """Submit a job, wait and return its result; on a terminal, show the progress.

    That is the time waited, and the bytes transferred of a large argument or result.
    """
    with transfer_progress(task) as on_transfer, Client(on_transfer=on_transfer) as client:
        return client.call(task, *args, timeout=timeout)


@contextmanager
def transfer_progress(task: str) -> Iterator[OnProgress | None]:
    """Show on a terminal that a job is pending; yield a callback for the bytes transferred."""
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
    previous = 0

    def on_transfer(done: int, total: int) -> None:
        nonlocal previous
        if done <= previous:  # another value begins
            bytes_.reset(bar)
        previous = done if done < total else 0
        bytes_.update(bar, completed=done, total=total, visible=done < total)

    with Live(Group(waiting, bytes_), console=Console(stderr=True), transient=True):
        yield on_transfer


@contextmanager
def parts_progress(description: str) -> Iterator[OnProgress | None]:
    """Show on a terminal how many parts of a result have arrived; yield a callback for each."""
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
        bar = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def run(command: Callable[..., Any]) -> None:
    """Run a click command; exit with 1 if the job failed or has no result, 2 for wrong usage.

    An error is one line on stderr, `error: …`, never a traceback.
    """
    command.callback = _guarded(command.callback)  # type: ignore[attr-defined]  # a click.Command
    try:
        command(standalone_mode=False)
        if sys.stdout is not None:  # closed by the shell: >&-
            sys.stdout.flush()
    except _Failed as failed:
        _exit(_format_error(failed.error), 1)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        _drop_output()
        sys.exit(1)
    except click.exceptions.Abort:
        _exit("stopped", 130)
    except click.UsageError as error:
        _exit(f"{error.format_message()} (see --help)", error.exit_code)
    except Exception as error:  # noqa: BLE001 - a job may raise any error
        _exit(_format_error(error), 1)


class _Failed(Exception):
    """Wraps an error that click would handle itself, in some cases as success."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def _guarded(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return `callback` with the errors that click would handle raised as _Failed."""

    @wraps(callback)
    def guarded(*args: Any, **options: Any) -> Any:
        try:
            return callback(*args, **options)
        except click.UsageError:
            raise
        except (EOFError, click.ClickException, click.exceptions.Exit, click.Abort) as error:
            raise _Failed(error) from error
        except OSError as error:
            if error.errno != EPIPE or _has_reader():
                raise _Failed(error) from error
            raise

    return guarded


def _has_reader() -> bool:
    """Return False if standard output is a pipe whose read end is closed."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    events = select.poll()
    events.register(output, 0)  # poll always reports errors
    return not any(event & select.POLLERR for _, event in events.poll(0))


def _format_error(error: Exception) -> str:
    if isinstance(error, KeyError):  # its text is only the key: an unknown task or queue
        return f"{type(error).__name__}: {error.args[0] if error.args else ''}"
    if isinstance(error, TimeLimitExceeded | SoftTimeLimitExceeded):  # their text is a repr
        kind = "soft time limit" if isinstance(error, SoftTimeLimitExceeded) else "time limit"
        limit = f" of {error.args[0]:g} s" if error.args else ""
        return f"{type(error).__name__}: the job ran for longer than its {kind}{limit}"
    return str(error) or type(error).__name__


def _drop_output() -> None:
    """Discard buffered output: Python's flush at exit would fail on a full disk or closed pipe."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit(message: str, status: int) -> None:
    _drop_output()
    click.echo(f"error: {printable(' '.join(message.split()))}", err=True)
    sys.exit(status)
