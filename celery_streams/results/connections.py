"""Connections of a waiting caller's own: Celery's know no deadline, and wait for minutes."""

from collections.abc import Sequence
from threading import Lock
from time import monotonic
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout

#: Keys that one command names, so that no other client waits long.
BATCH = 1000
#: Seconds that an operation may take, however near or far the caller's deadline is.
LEAST, MOST = 0.1, 1.0


class Subscription:
    """A connection that is told what is published on one channel.

    redis-py's takes three times as long to hear a notice, which somebody waits for.
    """

    def __init__(self, connection: Any, channel: bytes, interval: float) -> None:
        self._connection = connection
        #: Seconds of silence after which the server is asked for a sign of life; twice as many
        #: and it is gone.
        self._interval = interval
        self._heard_at, self._has_asked = monotonic(), False
        connection.send_command("SUBSCRIBE", channel)

    def hear(self, seconds: float) -> tuple[bytes, Any] | None:
        """Return what the server tells next, and its kind; None if nothing in so many seconds.

        The first is `subscribe`: what is published from then on will be told, as a `message`; a
        `pong` says that it is alive. Raises redis-py's errors; ConnectionError, too, if it is not.
        https://redis.io/docs/latest/develop/pubsub/#format-of-pushed-messages
        """
        try:
            kind, *_, what = self._connection.read_response(
                timeout=seconds, disconnect_on_error=False
            )
        except RedisTimeout:
            self._ask_for_life()
            return None
        self._heard_at, self._has_asked = monotonic(), False
        return kind, what

    def _ask_for_life(self) -> None:
        silent = monotonic() - self._heard_at
        if silent > 2 * self._interval:
            raise RedisConnectionError("the connection went silent")
        if silent > self._interval and not self._has_asked:
            self._connection.send_command("PING")
            self._has_asked = True

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()


class ResultConnections:
    """Connections made as those of a backend are: one to read keys by, others to be told by."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._reader: Any = None
        self._reading = Lock()

    def subscribe(self, oid: str, seconds: float, interval: float) -> Subscription:
        """Return a subscription, which asks for a sign of life after so long without any."""
        kind, options = self._connection(min(max(seconds, LEAST), MOST))
        # In its second version the protocol tells as it replies: nothing has to be told apart.
        connection = kind(**{**options, "protocol": 2})
        return Subscription(connection, self._backend.channel_of(oid), interval)

    def read(self, keys: Sequence[bytes], seconds: float) -> list[Any]:
        """Return what the keys hold, None for those that are not there; threads take turns."""
        return [value for some in self._each("MGET", keys, seconds) for value in some]

    def delete(self, keys: Sequence[bytes], seconds: float) -> None:
        """Remove keys, whether they are there or not; threads take turns."""
        self._each("UNLINK", keys, seconds)

    def _each(self, command: str, keys: Sequence[bytes], seconds: float) -> list[Any]:
        """Return the replies to a command for each batch of keys."""
        seconds = min(max(seconds, LEAST), MOST)
        if not self._reading.acquire(timeout=seconds):
            raise TimeoutError("others read, for so long that the server may be gone")
        try:
            return self._ask(command, keys, seconds)
        except RedisConnectionError:  # closed while it was idle
            return self._ask(command, keys, seconds)
        finally:
            self._reading.release()

    def _ask(self, command: str, keys: Sequence[bytes], seconds: float) -> list[Any]:
        reader, self._reader = self._reader, None
        if reader is None:
            kind, options = self._connection(seconds)
            reader = kind(**options)
        replies: list[Any] = []
        for start in range(0, len(keys), BATCH):
            reader.send_command(command, *keys[start : start + BATCH])
            replies.append(reader.read_response(timeout=seconds))
        self._reader = reader  # not after an error: replies may be under way
        return replies

    def close(self) -> None:
        """Close the connection to read by, unless a thread reads."""
        reader, self._reader = self._reader, None
        if reader:
            reader.disconnect()

    def _connection(self, seconds: float) -> tuple[Any, dict[str, Any]]:
        pool = self._backend.client.connection_pool
        limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        once: Any = {"retry": None, "retry_on_timeout": False, "retry_on_error": []}
        health = {"health_check_interval": 0}
        if "path" in pool.connection_kwargs:  # a socket of this machine knows one limit for both
            limits.pop("socket_connect_timeout")
        return pool.connection_class, {**pool.connection_kwargs, **limits, **once, **health}
