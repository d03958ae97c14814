"""Checks of the arguments of remote control commands."""

from signal import Signals
from typing import Any

from billiard.common import TERM_SIGNAME
from celery.platforms import signals

from celery_streams.transport.validation import MAX_NAME, is_name

#: Limit on the items of an argument other than job ids.
MAX_NAMES = 1000

_signals: Any = signals  # its type stubs leave most of it out


class Refused(Exception):
    """A command was not executed; the message is one sentence that says why."""


def check_names(argument: str, names: Any, limit: int = MAX_NAMES) -> None:
    """Raise Refused unless `names` is a list of at most `limit` names."""
    if not isinstance(names, list | tuple):
        raise Refused(f"{argument} must be a list of strings")
    if len(names) > limit:
        raise Refused(f"{argument} must have at most {limit} items, not {len(names)}")
    if not all(name and is_name(name) for name in names):
        raise Refused(f"{argument} must be strings of 1 to {MAX_NAME} characters")


def is_number(
    value: Any, maximum: float, *, minimum: float = 1e-9, kinds: tuple[type, ...] = (int, float)
) -> bool:
    """Return True if `value` is of one of the types `kinds` and between the bounds."""
    return type(value) in kinds and minimum <= value <= maximum


def signal_number(signal: Any) -> int:
    """Return the number of a signal, given by number or name; by default, Celery's."""
    try:
        return int(Signals(_signals.signum(signal or TERM_SIGNAME)))
    except (AttributeError, TypeError, ValueError):
        raise Refused(f"there is no signal {brief(signal)}") from None


def brief(value: Any) -> str:
    """Return a short representation of a value, for an error message."""
    return ascii(value)[:80]
