"""Shared parts of the callers' commands: number arguments, the timeout, printed results."""

import re
import sys
from collections.abc import Callable
from typing import Any

import click
import gmpy2

from callers.arrays import format_array
from callers.client import TIMEOUT, Client, check_timeout
from callers.progress import transfer_progress
from celery_streams.printable import printable

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


def call(task: str, *args: Any, timeout: float, **kwargs: Any) -> Any:
    """Submit a job, wait and return its result; on a terminal, show the progress.

    That is the time waited, and the bytes transferred of a large argument or result.
    """
    with transfer_progress(task) as on_transfer, Client(on_transfer=on_transfer) as client:
        return client.call(task, *args, timeout=timeout, **kwargs)
