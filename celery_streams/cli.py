"""Runs a click command so that every error is one line on stderr, never a traceback."""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EPIPE
from functools import wraps
from typing import Any

import click
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from celery_streams.printable import printable


def run(command: click.Command) -> None:
    """Run a click command; exit with 1 if it fails, 2 for wrong usage, 130 after Ctrl-C.

    SIGTERM, too, lets it clean up; the status is then 143.
    """
    _guard(command)
    signal.signal(signal.SIGTERM, _terminate)
    with errors_in_one_line():
        command(standalone_mode=False)
        if sys.stdout is not None:  # closed by the shell: >&-
            sys.stdout.flush()


def _terminate(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Print an error of the block as one line, `error: …`, and exit with its status."""
    try:
        yield
    except _Failed as failed:
        _exit(_format_error(failed.error), 1)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        _drop_output()
        sys.exit(1)
    except click.exceptions.Abort:
        _exit("stopped", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.UsageError as error:
        fault = error.format_message().removesuffix(".")
        _exit(f"{fault} (see --help)", error.exit_code)
    except Exception as error:  # noqa: BLE001 - a job or a configuration may raise any error
        _exit(_format_error(error), 1)


class _Failed(Exception):
    """Wraps an error that click would handle itself, in some cases as success."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def _guard(command: click.Command) -> None:
    """Have a command and its subcommands raise as _Failed the errors that click would handle."""
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            _guard(subcommand)
    elif command.callback:
        command.callback = _guarded(command.callback)


def _guarded(callback: Callable[..., Any]) -> Callable[..., Any]:
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
    if isinstance(error, SyntaxError):  # its text names the file without its folder
        return f"{error.filename}, line {error.lineno}: {error.msg}"
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
