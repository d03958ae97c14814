"""When a message is due and when it is too old, and by which clock."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any

#: Digits of a valid number of milliseconds.
MAX_DIGITS = 15


class ServerClock:
    """The server's clock, by which all consumers agree when a message is due."""

    def __init__(self) -> None:
        #: Seconds by which it is ahead of this machine's.
        self.ahead = 0.0

    def set(self, now: float) -> None:
        """Note the server's time, in seconds since 1970."""
        self.ahead = now - time()

    def seconds_until(self, moment: float) -> float:
        """Return the seconds until a moment, in seconds since 1970; negative if it has passed."""
        return moment - time() - self.ahead

    def has_reached(self, eta: Any) -> bool:
        """Return True if the time in an `eta` header has come."""
        due = moment(eta)
        return due is not None and self.seconds_until(due.timestamp()) <= 0


def due(message: Mapping[str, Any]) -> float:
    """Return when a message is due, in seconds since 1970; 0 without an ETA."""
    eta = moment(message["headers"].get("eta")) if message.get("headers") else None
    return eta.timestamp() if eta else 0


def shift(headers: dict[str, Any], seconds: float) -> None:
    """Move the ETA and the expiry in the headers back by `seconds`."""
    for name in ("eta", "expires"):
        named = moment(headers.get(name))
        if named:
            headers[name] = (named - timedelta(seconds=seconds)).isoformat()


def moment(value: Any) -> datetime | None:
    """Return the time in a header, UTC unless it has a time zone; None if it is not a time."""
    if not isinstance(value, str):
        return None
    try:
        named = datetime.fromisoformat(value)
    except ValueError:
        return None
    return named if named.tzinfo else named.replace(tzinfo=UTC)


def milliseconds(value: Any) -> int | None:
    """Return a number of milliseconds, an int or AMQP's digits; None for anything else."""
    is_number = type(value) is int and 0 <= value < 10**MAX_DIGITS  # bounded before str()
    text = str(value) if is_number else value if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None
