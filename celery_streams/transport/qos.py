"""Kombu's QoS: the prefetch limit, over the messages of streams and those of kombu's lists."""

from contextlib import suppress
from typing import Any, Protocol

from kombu.transport import redis
from redis.exceptions import RedisError

from celery_streams.transport import keys
from celery_streams.transport.deliveries import Deliveries


class _Channel(Protocol):
    deliveries: Deliveries

    @property
    def has_lists(self) -> bool: ...


class StreamQoS(redis.QoS):
    """Passes the messages of streams on to `Deliveries`; kombu looks after those of its lists."""

    # What the type stubs leave out of kombu's class.
    _delivered: Any
    _dirty: Any
    _flush: Any
    _on_collect: Any

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._streams: _Channel = channel
        self._deliveries = self._streams.deliveries

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message."""
        if keys.is_tag(delivery_tag):
            self._deliveries.add(delivery_tag, message)
        else:
            super().append(message, delivery_tag)

    def get(self, delivery_tag: str) -> Any:
        """Return a delivered message."""
        if keys.is_tag(delivery_tag):
            return self._deliveries.get(delivery_tag)
        return super().get(delivery_tag)

    def can_consume(self) -> bool:
        """Return True if the channel may fetch."""
        return bool(self.can_consume_max_estimate() != 0)

    def can_consume_max_estimate(self) -> Any:
        """Return how many messages the channel may fetch; None without a limit."""
        if not self.prefetch_count:
            return None
        held = len(self._delivered) - len(self._dirty) + self._deliveries.count
        return max(self.prefetch_count - held, 0)

    def ack(self, delivery_tag: str) -> None:
        """Ack a message."""
        if keys.is_tag(delivery_tag):
            self._deliveries.ack(delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT002 - kombu's
        """Requeue a message, or dead-letter it."""
        if not keys.is_tag(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)
        elif requeue:
            self._deliveries.requeue(delivery_tag)
        else:
            self._deliveries.dead_letter(delivery_tag, "rejected by the worker")

    def restore_unacked(self, client: Any = None) -> None:
        """Release all delivered messages."""
        self._deliveries.release_held()
        self._flush()
        super().restore_unacked(client)

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Restore what was taken from kombu's lists; `Maintenance` reclaims from streams."""
        if self._streams.has_lists:
            super().restore_visible(*args, **options)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give back what the channel holds, except jobs that still run; once."""
        self._on_collect.cancel()
        if not self._deliveries.is_open:
            return
        self._flush()
        with suppress(OSError, RedisError):
            for tag in [*self._delivered]:
                self.restore_by_tag(tag)
        self._delivered.clear()
        self._deliveries.close()
