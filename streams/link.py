"""Connections of a waiting caller's own: Celery's know no deadline, and wait for minutes."""

from collections.abc import Sequence
from threading import Lock
from typing import Any

from redis import ConnectionPool
from redis.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError

#: Keys that one command names, so that no other client waits long.
BATCH = 1000
#: Seconds that an operation may take, however near or far the caller's deadline is.
LEAST, MOST = 0.1, 1.0


class Link:
    """Connections made as those of a backend are: one to read keys by, others to be told by."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._reader: Any = None
        self._reading = Lock()

    def subscribe(self, oid: str, seconds: float, interval: float) -> PubSub:
        """Return a subscription, which asks for a sign of life after so long without any."""
        kind, options = self._connection(min(max(seconds, LEAST), MOST), interval)
        subscription = PubSub(ConnectionPool(kind, **options))
        subscription.subscribe(self._backend.channel_of(oid))
        return subscription

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

    def _connection(self, seconds: float, interval: float = 0) -> tuple[Any, dict[str, Any]]:
        pool = self._backend.client.connection_pool
        limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        once: Any = {"retry": None, "retry_on_timeout": False, "retry_on_error": []}
        health = {"health_check_interval": interval}
        return pool.connection_class, {**pool.connection_kwargs, **limits, **once, **health}
