"""Connections that waiting callers use: every operation on one ends in time.

A connection that went silent without a word would hold up its reader for as long as the
socket's time-out, which is minutes by default and knows no caller's deadline.
"""

import select
import selectors
from collections.abc import Iterable, Iterator, Sequence
from threading import BoundedSemaphore
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

#: Keys or channels that one command names, so that no other client waits long.
BATCH = 1000
#: Connections to read by: a connection takes longer to make than a few readings.
MOST_READERS = 8


class Link:
    """One connection, made as those of a pool are, and outside of it."""

    def __init__(self, pool: Any, seconds: float) -> None:
        """Connect; no step of it may take longer than `seconds`."""
        self.connection = pool.connection_class(**pool.connection_kwargs)
        self.connection.socket_timeout = seconds
        self.connection.socket_connect_timeout = seconds
        self.connection.connect()

    def send(self, *command: Any) -> None:
        """Send a command; whoever reads gets its reply."""
        # No health check: it would take the reply under way for its own.
        self.connection.send_command(*command, check_health=False)

    def close(self) -> None:
        """Close the connection, if it is not closed."""
        self.connection.disconnect()


class Query(Link):
    """A connection to read keys by."""

    def read(self, keys: Sequence[bytes], seconds: float) -> list[Any]:
        """Return what the keys hold, None for those that are not there."""
        values: list[Any] = []
        try:
            for start in range(0, len(keys), BATCH):
                values += self._read(keys[start : start + BATCH], seconds)
        except BaseException:
            self.close()  # replies may be under way that nobody will read
            raise
        return values

    def _read(self, keys: Sequence[bytes], seconds: float) -> list[Any]:
        # MGET says of a key that holds no string what it says of one that is not there.
        single = len(keys) == 1
        self.send("GET" if single else "MGET", *keys)
        reply: Any = self.connection.read_response(timeout=seconds)
        return [reply] if single else reply


class Reader:
    """Reads keys, by as many connections as there are readers at a time, up to a limit."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._idle: list[Query] = []
        self._free = BoundedSemaphore(MOST_READERS)

    def read(self, keys: Sequence[bytes], seconds: float) -> list[Any]:
        """Return what the keys hold; no reply may take longer than `seconds`."""
        if not self._free.acquire(timeout=seconds):
            raise TimeoutError("others read, for so long that the server may be gone")
        try:
            return self._read_by_one(keys, seconds)
        finally:
            self._free.release()

    def _read_by_one(self, keys: Sequence[bytes], seconds: float) -> list[Any]:
        while self._idle:
            try:
                query = self._idle.pop()
            except IndexError:  # another thread took it
                break
            try:
                return self._read(query, keys, seconds)
            except RedisConnectionError:
                continue  # closed while it was idle, as the others may be
        return self._read(Query(self._pool, seconds), keys, seconds)

    def _read(self, query: Query, keys: Sequence[bytes], seconds: float) -> list[Any]:
        values = query.read(keys, seconds)
        self._idle.append(query)
        return values

    def close(self) -> None:
        """Close the connections that nobody uses now."""
        while self._idle:
            self._idle.pop().close()


class Subscription(Link):
    """A connection to be told by.

    One thread waits for notices, and any may subscribe: both under a lock of the caller's,
    but for the waiting itself, which touches nothing but the socket.
    """

    def subscribe(self, channels: Iterable[bytes]) -> None:
        """Subscribe to channels; `("subscribe", channel)` comes once the server has."""
        self._send_many("SUBSCRIBE", channels)

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """Unsubscribe from channels."""
        self._send_many("UNSUBSCRIBE", channels)

    def _send_many(self, command: str, channels: Iterable[bytes]) -> None:
        names = [*channels]
        for start in range(0, len(names), BATCH):
            self.send(command, *names[start : start + BATCH])

    def wait(self, seconds: float) -> None:
        """Return when something has come, or after so many seconds."""
        sock = self.connection._sock  # noqa: SLF001 - redis-py waits by reading alone
        try:
            if hasattr(select, "poll"):  # knows no greatest number of a file, as select does
                poll = select.poll()
                poll.register(sock, select.POLLIN)
                poll.poll(seconds * 1000)
            else:
                with selectors.DefaultSelector() as selector:
                    selector.register(sock, selectors.EVENT_READ)
                    selector.select(seconds)
        except (OSError, TypeError, ValueError):
            return  # closed meanwhile: reading says so

    def received(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield all that has come: what it is, its channel and its payload.

        Raises ResponseError where the server refused to subscribe.
        """
        while self.connection.can_read(timeout=0):
            reply = self.connection.read_response(push_request=True)
            if isinstance(reply, list) and len(reply) == 3:  # noqa: PLR2004 - kind, channel, payload
                yield _text(reply[0]), reply[1], reply[2]
            else:  # the reply to PING, which the protocol's versions give in two forms
                yield "pong", None, None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
