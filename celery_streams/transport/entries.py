"""Messages in a stream, as a fetch brings them and an ack takes them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from celery_streams.protocol import text
from celery_streams.transport import keys

#: Digits of a valid number of deliveries, and of a valid time in milliseconds.
MAX_DIGITS, MAX_TIME_DIGITS = 10, 14


class Entry(NamedTuple):
    """A message in a stream."""

    #: Its delivery tag.
    tag: str
    message: bytes
    #: The number of earlier deliveries; None for a message that was never released or reclaimed.
    deliveries: int | None = None
    #: Whether a worker's rate limit of its task permits it to run now.
    is_permitted: bool = False
    #: When it was published, in milliseconds since 1970, if its id does not tell.
    published: int = 0

    @property
    def since(self) -> int:
        """Since when it has waited, in milliseconds since 1970."""
        return self.published or int(keys.place(self.tag)[1].partition("-")[0])


class Result(NamedTuple):
    """A job's result as it is stored."""

    key: bytes
    payload: bytes
    #: Seconds until it expires; 0 for never.
    seconds: int
    #: The channel on which it is announced; empty for none.
    channel: bytes


class Ack(NamedTuple):
    """The acknowledgement of a message, and the result that is stored in the same command."""

    tag: str
    result: Result | None = None


def fetched(reply: Any) -> list[Entry]:
    """Return the entries in a reply to XREADGROUP, in RESP2 or RESP3."""
    found = []
    for stream, its in reply.items() if isinstance(reply, dict) else reply or ():
        name = text(stream)
        for entry_id, fields in its:
            found.append(read(keys.tag(name, text(entry_id)), fields))
    return found


def read(tag: str, fields: Sequence[bytes]) -> Entry:
    """Return an entry by its fields, each name followed by its value."""
    if len(fields) == 2 and fields[0] == b"message":  # noqa: PLR2004 - as nearly all
        return Entry(tag, fields[1])
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    message, deliveries = named.get(b"message", b""), named.get(b"deliveries")
    if deliveries is None:
        return Entry(tag, message)
    published = _number(named.get(b"published", b""), MAX_TIME_DIGITS)
    is_permitted = named.get(b"is_permitted") == b"1"
    return Entry(tag, message, _number(deliveries, MAX_DIGITS), is_permitted, published)


def _number(digits: bytes, limit: int) -> int:
    return int(digits) if digits.isdigit() and len(digits) < limit else 0
