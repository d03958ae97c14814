"""Queue maintenance: promoting due messages, reclaiming expired leases, renewing `x-expires`."""

import math
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from redis.exceptions import ResponseError

from celery_streams.errors import Malformed
from celery_streams.transport.deliveries import Deliveries
from celery_streams.transport.eta import ServerClock
from celery_streams.transport.queues import Queues
from celery_streams.transport.refusals import Refusals
from celery_streams.transport.revocation import Revoked
from celery_streams.transport.validation import check

#: Seconds between two rounds.
INTERVAL = 1.0
#: Rounds that all consumers of a queue make in a second.
MAX_ROUNDS = 50
#: Seconds after which an idle consumer that holds nothing is removed, at least.
MAX_IDLE = 60.0


class Maintenance:
    """Maintains the queues that a channel consumes from; any consumer may, at any time.

    `consumed` returns these queues, `client` a client without a prefix.
    """

    def __init__(
        self,
        queues: Queues,
        deliveries: Deliveries,
        refusals: Refusals,
        consumed: Callable[[], Iterable[str]],
        client: Callable[[], Any],
        *,
        lease: float,
        max_message_bytes: int,
    ) -> None:
        self._queues = queues
        self._deliveries = deliveries
        self._refusals = refusals
        self._consumed = consumed
        self._client = client
        self._lease = lease
        self._max_message_bytes = max_message_bytes
        self.clock = ServerClock()
        #: What the worker has read of the revoked jobs.
        self.revoked: Revoked | None = None
        #: How many consumers the queue with the most has: their rounds serve all of them.
        self.consumers = 0
        self._next_round = self._next_read = 0.0
        #: When the next delayed message is due.
        self._next_promotion = math.inf
        self._reclaims_from = math.inf

    @property
    def next_due(self) -> float:
        """When `run` has something to do, by the monotonic clock."""
        soonest = min(self._next_round, self._next_read, self._next_promotion)
        return max(soonest, self._refusals.pause_until)

    def run(self) -> None:
        """Promote what is due; once a second, do everything else.

        Consumers of a queue make MAX_ROUNDS rounds in a second, if they are more than that.
        """
        now = monotonic()
        if now < self.next_due:
            return
        if now >= self._next_read:
            self._next_read = now + INTERVAL
            self.read_revoked()
        if now < min(self._next_round, self._next_promotion):
            return
        self._next_promotion = math.inf
        for queue in self._consumed():
            self._refusals.attempt(self.promote, queue)
        if now < self._next_round:
            return
        self._next_round = now + max(INTERVAL, self.consumers / MAX_ROUNDS)
        for queue in self._consumed():
            self._refusals.attempt(self.reclaim, queue)
            self._refusals.attempt(self._queues.renew, queue)

    # Delayed ---------------------------------------------------------------------------

    def promote(self, queue: str) -> None:
        """Promote a queue's due messages."""
        promoted = self._queues.promote(queue)
        self.clock.set(promoted.now)
        # If there are more, other commands come in between.
        self.promote_at(promoted.now if promoted.is_more else promoted.next_due)

    def promote_at(self, due: float) -> None:
        """Promote again at `due`, in seconds since 1970 by the server's clock."""
        moment = monotonic() + self.clock.seconds_until(due)
        self._next_promotion = min(self._next_promotion, moment)

    # Reclaim ---------------------------------------------------------------------------

    def delay_reclaim(self, uptime: float) -> None:
        """Wait with reclaiming until live consumers had time to renew their leases.

        If the server started only `uptime` seconds ago, they first have to reconnect.
        """
        delay = max(self._lease / 3, self._lease - uptime)
        self._reclaims_from = min(self._reclaims_from, monotonic() + delay)

    def reclaim(self, queue: str) -> None:
        """Reclaim a queue's messages whose leases expired."""
        lease = self._lease if monotonic() > self._reclaims_from else 0
        max_idle = max(MAX_IDLE, 4 * self._lease)
        exhausted = self._queues.reclaim(
            self._deliveries.consumer, queue, lease, self._deliveries.max_deliveries, max_idle
        )
        for entry in exhausted:
            try:
                envelope = check(entry.message, self._max_message_bytes)
            except Malformed as error:
                envelope = error.envelope
            self._deliveries.fail_exhausted(entry.tag, envelope, "its worker died")

    # Revoked ---------------------------------------------------------------------------

    def watch_revoked(self, revoked: Revoked) -> None:
        """Read the ids of revoked jobs, now and in each round."""
        self.revoked = revoked
        self._read_revoked(revoked)

    def read_revoked(self) -> None:
        """Read the new ids of revoked jobs now."""
        if self.revoked:
            self._read_revoked(self.revoked)

    def _read_revoked(self, revoked: Revoked) -> None:
        """Read the new ids of revoked jobs; if that is refused, jobs are fetched all the same."""
        try:
            revoked.read(self._client())
        except ResponseError as error:
            self._refusals.log(error)
