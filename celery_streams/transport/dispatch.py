"""Where fetched messages go: to this process' runner, to their queue's consumer, or elsewhere."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol

from celery_streams import worker_state
from celery_streams.errors import Malformed
from celery_streams.transport import eta
from celery_streams.transport.deliveries import DeadMessage, Deliveries
from celery_streams.transport.entries import Entry
from celery_streams.transport.maintenance import Maintenance
from celery_streams.transport.queues import Queues
from celery_streams.transport.refusals import Refusals
from celery_streams.transport.validation import check, sender

#: Seconds that a delayed message may be delivered early: the difference between the server's clock
#: and ours is not known more exactly. The worker waits out the rest.
MAX_EARLY = 0.1
#: The header of a job that its task's rate limit permits to run.
PERMITTED = "streams.permitted"
#: Seconds after which acks are flushed in the middle of a fetch.
ACK_FLUSH_INTERVAL = 0.02


class Runner(Protocol):
    """Runs jobs in the thread that fetches them."""

    #: Messages that one fetch should bring.
    limit: int

    def begin(self, entries: Sequence[Entry]) -> None:
        """Begin with a fetch."""

    def claim(self, position: int) -> bool:
        """Begin with a message of the fetch; False if other consumers should take the rest."""

    def refresh(self) -> None:
        """Read anew what remote control may have changed."""

    def run(self, entry: Entry) -> bool:
        """Run the job of a message; return False if it has to be delivered."""

    def ended(self) -> None:
        """Note that the message is dealt with."""

    def flush(self) -> None:
        """Send the acks and results of the messages before."""

    def end(self, count: int, *, is_all: bool) -> None:
        """End with a fetch of `count` messages, of which all or some were taken."""


class Dispatch:
    """Delivers entries by `deliver(message, queue)`.

    `consumers` maps the queues that are consumed from; `can_consume` returns True below the
    prefetch limit; `message_lifetimes` are the milliseconds that messages of a queue may wait.
    """

    def __init__(
        self,
        queues: Queues,
        deliveries: Deliveries,
        refusals: Refusals,
        maintenance: Maintenance,
        *,
        consumers: Mapping[str, Any],
        deliver: Callable[[dict[str, Any], str], None],
        can_consume: Callable[[], bool],
        message_lifetimes: Mapping[str, int],
        max_message_bytes: int,
    ) -> None:
        self._queues = queues
        self._deliveries = deliveries
        self._refusals = refusals
        self._maintenance = maintenance
        self._clock = maintenance.clock
        self._consumers = consumers
        self._deliver = deliver
        self._can_consume = can_consume
        self._message_lifetimes = message_lifetimes
        self._max_message_bytes = max_message_bytes
        #: Runs jobs in this process; None if Celery's consumer does.
        self.runner: Runner | None = None
        #: Queues whose messages are acked when they are delivered.
        self.no_ack: set[str] = set()
        #: Fetched messages for the next calls of a program that drains one message per call.
        self._kept: deque[Entry] = deque()
        #: When a message was delivered, by the monotonic clock: channels take turns.
        self.delivered_at = 0.0

    # A whole fetch ---------------------------------------------------------------------

    def run_all(self, entries: Sequence[Entry], runner: Runner) -> None:
        """Run the jobs of a fetch here; release those that other consumers should take."""
        runner.begin(entries)
        left_over: Sequence[Entry] = ()
        flushed_at = monotonic()
        for position, entry in enumerate(entries):
            if not runner.claim(position):
                left_over = entries[position:]
                break
            if not runner.run(entry):
                self.deliver(entry, self._queues.queue_of(entry.tag))
            runner.ended()  # but not for a job that ends its process
            if monotonic() - flushed_at > ACK_FLUSH_INTERVAL:
                runner.flush()
                flushed_at = monotonic()
        runner.end(len(entries), is_all=not left_over)
        if left_over:
            self._deliveries.release(entry.tag for entry in left_over)

    def deliver_all(self, entries: list[Entry]) -> list[Entry]:
        """Deliver the messages of a fetch up to the prefetch limit; return those left over.

        A fetch brings more than the limit if it waited for several streams at once.
        """
        self._deliveries.expect(entry.tag for entry in entries)
        left_over = []
        for place, entry in enumerate(entries):
            if worker_state.is_stopping():
                left_over += entries[place:]
                break
            queue = self._queues.queue_of(entry.tag)
            # Cancelled since the fetch was sent, or beyond the limit.
            if queue not in self._consumers or not self._can_consume():
                left_over.append(entry)
            else:
                self.deliver(entry, queue)
                self._deliveries.flush()  # a pool may have run the job right here
        if left_over:
            self._deliveries.release(entry.tag for entry in left_over)
        self._deliveries.expect(())
        return left_over

    # One message per call ------------------------------------------------------------------

    @property
    def has_kept(self) -> bool:
        """Whether there are messages for the next calls."""
        return bool(self._kept)

    def keep(self, entries: Iterable[Entry]) -> None:
        """Keep messages for the next calls, and release those without a consumer."""
        kept = [*self._kept, *entries]
        self._kept = deque(
            each for each in kept if self._queues.queue_of(each.tag) in self._consumers
        )
        self._deliveries.expect(entry.tag for entry in self._kept)
        if left_over := [each.tag for each in kept if each not in self._kept]:
            self._deliveries.release(left_over)

    def drop_kept(self) -> None:
        """Keep no messages any more; they are released with all that the consumer holds."""
        self._kept.clear()

    def take_kept(self, queue: str) -> Entry | None:
        """Return the next message that is kept for a queue."""
        for entry in self._kept:
            if self._queues.queue_of(entry.tag) == queue:
                self._kept.remove(entry)
                return entry
        return None

    def deliver_kept(self) -> bool:
        """Deliver the next message that is kept; return False if there is nothing to deliver."""
        while self._kept and self._can_consume():
            entry = self._kept.popleft()
            self._deliveries.expect(each.tag for each in self._kept)
            if self.deliver(entry, self._queues.queue_of(entry.tag)):
                return True
        return False

    # One message -----------------------------------------------------------------------

    def deliver(self, entry: Entry, queue: str) -> bool:
        """Deliver a message; return False if it went elsewhere."""
        message = self.check(entry, queue)
        if message is None:
            return False
        if queue in self.no_ack:  # before the consumer may fail
            self._deliveries.ack(entry.tag)
        self.delivered_at = monotonic()
        self._deliver(message, queue)
        return True

    def check(self, entry: Entry, queue: str) -> dict[str, Any] | None:
        """Return a message as kombu's channel takes it; None if it is not to be delivered (now).

        Then it is delayed until its ETA, dropped because it is too old, or dead-lettered.
        """
        try:
            message = check(entry.message, self._max_message_bytes)
        except Malformed as error:
            dead = DeadMessage(queue, error.job_id, str(error), error.envelope)
            self._deliveries.fail(entry.tag, dead)
            return None
        due = eta.due(message)
        if due and self._clock.seconds_until(due) > MAX_EARLY:
            self._delay(entry.tag, queue, message, due)
            return None
        if self._is_too_old(entry, queue, message):
            self._drop(entry.tag, queue, message)
            return None
        headers = message["headers"]
        if abs(self._clock.ahead) > MAX_EARLY:
            eta.shift(headers, self._clock.ahead)
        # RabbitMQ's name for it. Set by us alone: a producer must not forge it.
        headers.pop("x-delivery-count", None)
        headers.pop(PERMITTED, None)
        if entry.is_permitted:
            headers[PERMITTED] = True
        message["properties"]["delivery_tag"] = entry.tag
        if entry.deliveries is not None:
            headers["redelivered"] = message["properties"]["delivery_info"]["redelivered"] = True
            headers["x-delivery-count"] = entry.deliveries
        return message

    def _delay(self, tag: str, queue: str, message: Mapping[str, Any], due: float) -> None:
        self._refusals.attempt(self._queues.delay, tag, self._queues.step_of(message), due)
        self._refusals.attempt(self._queues.renew, queue)
        self._maintenance.promote_at(due)

    # Expiration ------------------------------------------------------------------------

    def never_expires(self, tag: str) -> bool:
        """Return True if messages of an entry's queue may wait for any time."""
        return not self._message_lifetimes or (
            self._queues.queue_of(tag) not in self._message_lifetimes
        )

    def _is_too_old(self, entry: Entry, queue: str, message: Mapping[str, Any]) -> bool:
        """Return True if a message has waited longer than its sender or its queue allows.

        Celery's own `expires` is left to the worker, which revokes the job.
        """
        expiration = None
        if not message["headers"].get("expires"):
            expiration = eta.milliseconds(message["properties"].get("expiration"))
        limits = [
            each for each in (expiration, self._message_lifetimes.get(queue)) if each is not None
        ]
        if not limits:
            return False
        return -self._clock.seconds_until(entry.since / 1000) > min(limits) / 1000 + MAX_EARLY

    def _drop(self, tag: str, queue: str, message: Mapping[str, Any]) -> None:
        """Drop a message that is too old; one with a job is dead-lettered, for its caller."""
        job_id, _ = sender(message)
        if job_id and "task" in message["headers"]:
            reason = "it waited for longer than its expiration, or its queue's message_ttl"
            self._deliveries.fail(tag, DeadMessage(queue, job_id, reason, message))
        else:
            self._deliveries.ack(tag)
