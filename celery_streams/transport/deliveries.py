"""The messages that one consumer holds, and every way in which it lets go of them."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from threading import RLock
from time import sleep
from typing import Any, ClassVar, NamedTuple

from redis.exceptions import RedisError, ResponseError

from celery_streams import worker_state
from celery_streams.transport.entries import Ack, Entry, Result
from celery_streams.transport.lease import Lease
from celery_streams.transport.queues import Queues
from celery_streams.transport.refusals import Refusals
from celery_streams.transport.validation import check, sender

logger = logging.getLogger(__name__)

#: Acks that one command takes: Lua passes no more than some thousand arguments.
ACK_BATCH = 1000
#: Seconds from the end of a job to its ack in a thread of the pool, with a large margin.
THREAD_ACK_DELAY = 0.1


class DeadMessage(NamedTuple):
    """A message that is about to be dead-lettered."""

    queue: str
    #: The id of its job; None if it cannot be read.
    job_id: str | None
    reason: str
    #: The message, as far as it can be read.
    envelope: Mapping[str, Any]


class Deliveries:
    """The messages delivered to one consumer and not acked yet, each under its lease.

    Acks are collected, and flushed by the next fetch: `flushes_soon` returns True if that is about
    to come. `new_client` returns a client of its own, which outlives the channel. Any thread may
    ack. The thread that fetches does the rest, and that of the lease once the channel is closed.
    """

    #: Those of closed channels that have acks to flush or jobs that still run.
    closed: ClassVar[set["Deliveries"]] = set()

    def __init__(
        self,
        consumer: str,
        queues: Queues,
        refusals: Refusals,
        new_client: Callable[[], Any],
        flushes_soon: Callable[[], bool],
        *,
        lease: float,
        max_deliveries: int,
    ) -> None:
        #: The name of the consumer in its groups.
        self.consumer = consumer
        self._queues = queues
        self._refusals = refusals
        self.new_client = new_client
        self._flushes_soon = flushes_soon
        self._lease_seconds = lease
        self.max_deliveries = max_deliveries
        #: Called with each message before it is dead-lettered; the function that it returns is
        #: called when the message is out of the queue.
        self.on_dead_letter: Callable[[DeadMessage], Callable[[], object] | None] | None = None
        #: The streams that it may hold messages of.
        self.streams: set[str] = set()
        #: Acks that are not in Redis yet.
        self.pending_acks: deque[Ack] = deque()
        #: Delivered messages, by their tags.
        self._held: dict[str, Any] = {}
        #: Tags of messages that are fetched and will be delivered by this thread.
        self._expected: frozenset[str] = frozenset()
        self._lease: Lease | None = None
        #: Whether a pool renews the lease, and releases what is left.
        self._is_pools = False
        #: The client of the lease, and of everything else once the channel is closed.
        self.client: Any = None
        self._process = os.getpid()
        self._is_closed = False
        #: Tags of jobs that still ran when the channel was closed; True if the pool confirmed it.
        self._running: dict[str, bool] = {}
        self._has_to_release = False
        #: Serialises the final flush: a tag being acked must not be released by another thread.
        self._closing = RLock()

    # Held ------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """The number of held messages, including jobs of closed channels that still run."""
        return len(self._held) + sum(len(each._running) for each in [*self.closed])  # noqa: SLF001 - of this class

    @property
    def is_open(self) -> bool:
        """Whether the consumer is this process', and not closed."""
        return not self._is_closed and self._process == os.getpid()

    def hand_over(self, consumer: str) -> None:
        """Hold messages by the name of a pool, which renews their leases and releases the rest."""
        self.consumer, self._is_pools = consumer, True

    def get(self, tag: str) -> Any:
        """Return a delivered message."""
        return self._held[tag]

    def expect(self, tags: Iterable[str]) -> None:
        """Set which fetched, undelivered messages are renewed, instead of the previous ones."""
        self._expected = frozenset(tags)
        if self._expected:
            self._start_lease()

    def add(self, tag: str, message: Any) -> None:
        """Note a delivered message."""
        self._held[tag] = message
        self._start_lease()

    def _start_lease(self) -> None:
        if self._lease is None and not self._is_pools:
            self.client = self.new_client()
            self._lease = Lease(self.client, self.consumer, self._lease_seconds, self._renewable)
            self._lease.start()

    def _renewable(self) -> set[str] | None:
        """Return the tags whose leases are to be renewed; None to stop."""
        if not self._is_closed:
            return {*self._held, *self._acked_tags(), *self._expected}
        with self._closing:
            return self._renewable_when_closed()

    def _renewable_when_closed(self) -> set[str] | None:
        # A lost connection closed the channel: jobs that ran go on, and the lease's thread alone
        # flushes their acks.
        had_some = bool(self._running)
        running = worker_state.running()
        for tag, is_confirmed in [*self._running.items()]:
            if not is_confirmed and tag not in running:
                self._running.pop(tag, None)
        if self._has_to_release:
            self._release_the_rest()
        self.flush()
        if had_some or self.pending_acks:
            return set(self._running)
        self.closed.discard(self)
        return None

    def _acked_tags(self) -> set[str]:
        return {ack.tag for ack in self.pending_acks.copy()}

    # Ack -------------------------------------------------------------------------------

    def ack(self, tag: str) -> None:
        """Ack a message: with the next fetch, or at once if none is about to come."""
        # A job that is acked before it runs must not run again if it ends its worker.
        is_early = getattr(self._held.get(tag), "acks_early", False)
        self.ack_later(tag)
        if not self._is_closed and (is_early or not self._flushes_soon()):
            self.flush()

    def ack_later(self, tag: str, result: Result | None = None) -> None:
        """Ack a message, and store its job's result, with the next fetch or flush."""
        self.pending_acks.append(Ack(tag, result))
        self.forget(tag)

    def forget(self, tag: str) -> None:
        """Stop holding a message: it is acked, or another process holds it."""
        self._held.pop(tag, None)
        self._running.pop(tag, None)

    def take_acks(self) -> list[Ack]:
        """Return acks for one command; `restore_acks` takes those that failed back."""
        acks: list[Ack] = []
        with suppress(IndexError):  # another thread may have taken some
            while len(acks) < ACK_BATCH:
                acks.append(self.pending_acks.popleft())
        return acks

    def restore_acks(self, acks: Iterable[Ack]) -> None:
        """Keep acks that were not sent, or not confirmed, for the next command."""
        self.pending_acks.extendleft(acks)

    def flush(self) -> None:
        """Send the pending acks; those that the server refuses stay pending."""
        while self.pending_acks:
            acks = self.take_acks()
            try:
                self._queues.fetch(self.consumer, (), 0, acks)
            except ResponseError as error:
                self.restore_acks(acks)
                self._refusals.handle(error)
                break
            except BaseException:
                self.restore_acks(acks)
                raise

    # Release, requeue, dead-letter -------------------------------------------------------

    def release(self, tags: Iterable[str], deliveries: int = 0) -> None:
        """Release messages, adding `deliveries` to the count of each."""
        self._refusals.attempt(self._queues.release, tags, deliveries)

    def release_held(self) -> None:
        """Release all delivered messages."""
        held = [*self._held]
        self._held.clear()
        self.release(held)

    def release_waiting(self) -> None:
        """Release the messages whose jobs have not started: the worker is stopping."""
        worker_state.run_ready_callbacks()
        waiting = set(self._held) - set(worker_state.in_pool())
        if waiting:
            # A thread may be about to ack its job, and then to start the next one.
            sleep(THREAD_ACK_DELAY)
            worker_state.run_ready_callbacks()
            waiting = (waiting & set(self._held)) - worker_state.running()
        self._release_all((set(self._held) - waiting) | self._acked_tags())
        for tag in waiting:
            self.forget(tag)

    def _release_all(self, kept: Iterable[str]) -> None:
        """Release everything that Redis lists for this consumer, except `kept`."""
        if self._is_pools:
            return
        self._refusals.attempt(self._queues.release_all, self.consumer, self.streams, kept)

    def requeue(self, tag: str) -> None:
        """Requeue a message; at the limit of deliveries, dead-letter it and fail its job."""
        message = self._held[tag]
        deliveries = message.headers.get("x-delivery-count", 0)
        self._requeue(tag, deliveries, message._raw)  # noqa: SLF001 - kombu has no other name
        self.forget(tag)

    def requeue_entry(self, entry: Entry) -> None:
        """Requeue a message that was fetched and not delivered."""
        self._requeue(entry.tag, entry.deliveries or 0, check(entry.message))

    def _requeue(self, tag: str, deliveries: int, envelope: Mapping[str, Any]) -> None:
        if deliveries + 1 < self.max_deliveries:
            self.release([tag], 1)
        else:
            self.fail_exhausted(tag, envelope, "its pool process died, or the task requeued it")

    def dead_letter(self, tag: str, reason: str) -> None:
        """Dead-letter a message."""
        self._refusals.attempt(self._queues.dead_letter, tag, reason)
        self.forget(tag)

    def fail(self, tag: str, dead: DeadMessage) -> None:
        """Dead-letter a message and fail its job."""
        # In this order: a worker that dies in between leaves the message, to be failed again.
        job = dead.job_id or "unknown"
        logger.error("Job %s of %s is a dead letter: %s", job, dead.queue, dead.reason)
        fail_successors = self.on_dead_letter(dead) if self.on_dead_letter else None
        self.dead_letter(tag, dead.reason)
        if fail_successors:
            fail_successors()

    def fail_exhausted(self, tag: str, envelope: Mapping[str, Any], cause: str) -> None:
        """Dead-letter a message that was delivered too often, and fail its job."""
        reason = f"delivered {self.max_deliveries} times, and each time {cause}"
        job_id, _ = sender(envelope)
        self.fail(tag, DeadMessage(self._queues.queue_of(tag), job_id, reason, envelope))

    # Close -----------------------------------------------------------------------------

    def close(self) -> None:
        """Release what is held, except jobs that still run: they are acked when they end."""
        if not self.is_open:
            return
        if self._is_pools:
            self._is_closed = True
            return
        is_last = worker_state.is_stopping()
        begun = {} if is_last else worker_state.in_pool()
        self._running = {tag: begun[tag] for tag in [*self._held] if tag in begun}
        with self._closing, suppress(OSError, RedisError):  # tried again, or the lease expires
            self._is_closed = self._has_to_release = True
            self.closed.add(self)
            self.flush()
            self._release_the_rest()
        if is_last:
            self.flush_closed()
        is_done = not (self._running or self.pending_acks or self._has_to_release)
        if is_last or is_done or not self._lease:
            self.closed.discard(self)
            if self._lease:
                self._lease.end()

    def _release_the_rest(self) -> None:
        # After a crash it stays under its lease, and so counts as delivered, as after SIGKILL.
        if not worker_state.has_crashed():
            self._release_all({*self._running, *self._acked_tags()})
        self._has_to_release = False

    @classmethod
    def flush_closed(cls) -> None:
        """Flush the acks of closed channels; called once, as the worker ends."""
        for deliveries in [*cls.closed]:
            with suppress(OSError, RedisError):
                deliveries.flush()
