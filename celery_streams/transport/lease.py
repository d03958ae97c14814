"""The lease on messages that a consumer holds, renewed for as long as its process lives."""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

from redis.exceptions import ResponseError

from celery_streams.transport import keys

logger = logging.getLogger(__name__)


class Lease(Thread):
    """Renews in a thread: a pool may keep the main one busy for as long as a job takes.

    A consumer group knows how long ago a message was delivered. Claiming it again, for the same
    consumer, starts that time anew and leaves all else as it is; a message that another consumer
    has taken over by now has left the group, and is not claimed.
    https://redis.io/docs/latest/commands/xclaim/
    """

    def __init__(
        self, client: Any, consumer: str, seconds: float, held: Callable[[], Iterable[str] | None]
    ) -> None:
        super().__init__(name="lease", daemon=True)
        self._client = client
        self._consumer = consumer
        self._interval = seconds / 4
        self._held = held
        self._ended = Event()

    def run(self) -> None:
        """Renew four times in a lease, so that a missed one does no harm."""
        while not self._ended.wait(self._interval):
            try:
                held = self._held()
                if held is None:
                    break
                self._renew(held)
            except Exception as error:  # noqa: BLE001 - a thread that ended would let all leases end
                logger.debug("a lease was not renewed: %s", error)
        # Not what another thread just uses, to give a message back.
        self._client.connection_pool.disconnect(inuse_connections=False)

    def end(self) -> None:
        """Renew no more."""
        self._ended.set()

    def _renew(self, held: Iterable[str]) -> None:
        for stream, ids in keys.by_stream(held).items():
            with suppress(ResponseError):  # one that is gone, or is no stream, is not the others
                self._client.xclaim(stream, keys.GROUP, self._consumer, 0, ids, justid=True)
