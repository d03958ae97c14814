"""The lease on the messages that a consumer holds, renewed while its process lives."""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

from redis.exceptions import ResponseError

from celery_streams.transport import keys

logger = logging.getLogger(__name__)


class Lease(Thread):
    """A thread that renews leases: a pool may keep the main thread busy while a job runs.

    A consumer group records how long ago each message was delivered. Claiming a message for the
    consumer that holds it resets this idle time and changes nothing else. A message that another
    consumer has reclaimed is no longer pending, and is not claimed.
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
        self._stop_requested = Event()

    def run(self) -> None:
        """Renew four times per lease, so that a missed renewal does no harm."""
        while not self._stop_requested.wait(self._interval):
            try:
                held = self._held()
                if held is None:
                    break
                self._renew(held)
            except Exception as error:  # noqa: BLE001 - without the thread, all leases expire
                logger.debug("failed to renew a lease: %s", error)
        # Another thread may be releasing messages on a connection in use.
        self._client.connection_pool.disconnect(inuse_connections=False)

    def end(self) -> None:
        """Stop renewing."""
        self._stop_requested.set()

    def _renew(self, held: Iterable[str]) -> None:
        for stream, ids in keys.by_stream(held).items():
            with suppress(ResponseError):  # one bad stream must not block the others
                self._client.xclaim(stream, keys.GROUP, self._consumer, 0, ids, justid=True)
