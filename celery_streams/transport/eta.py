"""The times that a message names: when it is due, and when it is too late."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

#: Digits of a number of milliseconds.
MAX_DIGITS = 15


def due(message: Mapping[str, Any]) -> float:
    """Return when a message is due, in seconds since 1970; 0 for at once."""
    eta = moment(message["headers"].get("eta")) if message.get("headers") else None
    return eta.timestamp() if eta else 0


def shift(headers: dict[str, Any], ahead: float) -> None:
    """Turn a message's times into those of this machine's clock, which others are ahead of."""
    for name in ("eta", "expires"):
        named = moment(headers.get(name))
        if named:
            headers[name] = (named - timedelta(seconds=ahead)).isoformat()


def moment(value: Any) -> datetime | None:
    """Return the moment that a header names, in UTC if it says nothing else; None for no time."""
    if not isinstance(value, str):
        return None
    try:
        named = datetime.fromisoformat(value)
    except ValueError:
        return None
    return named if named.tzinfo else named.replace(tzinfo=UTC)


def milliseconds(value: Any) -> int | None:
    """Return a number of milliseconds as AMQP has it, in digits; None for anything else."""
    is_number = type(value) is int and 0 <= value < 10**MAX_DIGITS  # before it is made a text
    text = str(value) if is_number else value if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None
