"""Dedicated connections for waiting callers, with time-outs derived from their deadlines.

Celery's connections retry for minutes.
"""

from collections.abc import Sequence
from threading import Lock
from time import monotonic
from typing import Any, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout

#: Limit on the keys of one command, which blocks the server's other clients.
BATCH_SIZE = 1000
#: Bounds of an operation's time-out, in seconds, whatever the caller's deadline is.
MIN_TIMEOUT, MAX_TIMEOUT = 0.1, 1.0


class Subscription:
    """A connection subscribed to one channel; faster than redis-py's PubSub."""

    def __init__(self, connection: Any, channel: bytes, interval: float) -> None:
        self._connection = connection
        #: Seconds of silence before a PING; after twice as long, the connection is lost.
        self._interval = interval
        self._received_at, self._is_pinged = monotonic(), False
        connection.send_command("SUBSCRIBE", channel)

    def hear(self, seconds: float) -> tuple[bytes, Any] | None:
        """Return the kind and the data of the next message; None if none comes within `seconds`.

        The first is `subscribe`: notices published from then on arrive, each as a `message`. A
        `pong` answers a PING. Raises redis-py's errors, among them ConnectionError after silence.
        https://redis.io/docs/latest/develop/pubsub/#format-of-pushed-messages
        """
        try:
            kind, *_, data = self._connection.read_response(
                timeout=seconds, disconnect_on_error=False
            )
        except RedisTimeout:
            self._check_alive()
            return None
        self._received_at, self._is_pinged = monotonic(), False
        return kind, data

    def _check_alive(self) -> None:
        silence = monotonic() - self._received_at
        if silence > 2 * self._interval:
            raise RedisConnectionError("the connection went silent")
        if silence > self._interval and not self._is_pinged:
            self._connection.send_command("PING")
            self._is_pinged = True

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()


class _Backend(Protocol):
    """The part of `RedisBackend` that is used here."""

    client: Any

    def channel_of(self, oid: str) -> bytes: ...


class ResultConnections:
    """Connections with a backend's parameters: one that reads keys, and subscriptions."""

    def __init__(self, backend: _Backend) -> None:
        self._backend = backend
        self._reader: Any = None
        self._reader_lock = Lock()

    def subscribe(self, oid: str, seconds: float, interval: float) -> Subscription:
        """Return a subscription to the notices for `oid`; it checks the server after `interval`.

        `seconds` is the time left until the caller's deadline, here and below.
        """
        connection_class, options = self._connection(_bounded(seconds))
        # Protocol 2, in which messages and replies are of one form.
        connection = connection_class(**{**options, "protocol": 2})
        return Subscription(connection, self._backend.channel_of(oid), interval)

    def read(self, keys: Sequence[bytes], seconds: float) -> list[Any]:
        """Return the values of keys, None for a missing one; one thread reads at a time."""
        return [value for values in self._run("MGET", keys, seconds) for value in values]

    def delete(self, keys: Sequence[bytes], seconds: float) -> None:
        """Remove keys; one thread deletes at a time."""
        self._run("UNLINK", keys, seconds)

    def _run(self, command: str, keys: Sequence[bytes], seconds: float) -> list[Any]:
        """Return the replies to a command for each batch of keys."""
        seconds = _bounded(seconds)
        if not self._reader_lock.acquire(timeout=seconds):
            raise TimeoutError("another thread is still reading; the server may be unreachable")
        try:
            return self._send(command, keys, seconds)
        except RedisConnectionError:  # closed while it was idle
            return self._send(command, keys, seconds)
        finally:
            self._reader_lock.release()

    def _send(self, command: str, keys: Sequence[bytes], seconds: float) -> list[Any]:
        reader, self._reader = self._reader, None
        if reader is None:
            connection_class, options = self._connection(seconds)
            reader = connection_class(**options)
        replies: list[Any] = []
        for start in range(0, len(keys), BATCH_SIZE):
            reader.send_command(command, *keys[start : start + BATCH_SIZE])
            replies.append(reader.read_response(timeout=seconds))
        self._reader = reader  # not after an error: replies may be outstanding
        return replies

    def close(self) -> None:
        """Close the reading connection, unless a thread is using it."""
        reader, self._reader = self._reader, None
        if reader:
            reader.disconnect()

    def _connection(self, seconds: float) -> tuple[Any, dict[str, Any]]:
        pool = self._backend.client.connection_pool
        timeouts = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        once: Any = {"retry": None, "retry_on_timeout": False, "retry_on_error": []}
        health = {"health_check_interval": 0}
        if "path" in pool.connection_kwargs:  # Unix sockets take only socket_timeout
            timeouts.pop("socket_connect_timeout")
        return pool.connection_class, {**pool.connection_kwargs, **timeouts, **once, **health}


def _bounded(seconds: float) -> float:
    return min(max(seconds, MIN_TIMEOUT), MAX_TIMEOUT)
