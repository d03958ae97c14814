"""The subscription that announces the results of the jobs that a thread's backend sends."""

import threading
from typing import Any

from celery_streams.results.connections import ResultConnections, Subscription

#: Seconds without news after which the server is asked whether it is there.
INTERVAL = 1.0


class Listener:
    """Subscribes to the channel of `oid`; the one thread that holds the `turn` listens for all."""

    def __init__(self, connections: ResultConnections, oid: str) -> None:
        self._connections = connections
        self._oid = oid
        self._subscription: Subscription | None = None
        #: Held by the thread that listens. A callback in that thread may wait again.
        self.turn = threading.RLock()

    @property
    def is_subscribed(self) -> bool:
        """Whether results that are stored from now on are announced here."""
        return self._subscription is not None

    def hear(self, seconds: float, connect_timeout: float) -> tuple[bytes | None, Any]:
        """Return the kind and content of the next message within `seconds`, or (None, None).

        Subscribes first if need be. Raises redis-py's errors; ConnectionError for a silent server.
        """
        if self._subscription is None:
            self._subscription = self._connections.subscribe(self._oid, connect_timeout, INTERVAL)
        return self._subscription.hear(min(max(seconds, 0), INTERVAL)) or (None, None)

    def unsubscribe(self) -> None:
        """Close the subscription; `hear` opens another."""
        if self._subscription:
            self._subscription.close()
        self._subscription = None

    def close(self) -> None:
        """Close the subscription, unless another thread listens."""
        if self.turn.acquire(blocking=False):
            self.unsubscribe()
            self.turn.release()
