"""What a channel's consumer holds, and how it gives it back."""

import os
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import RLock
from time import sleep
from typing import Any, ClassVar

from kombu.transport import redis, virtual
from redis.exceptions import RedisError

from celery_streams import worker_state
from celery_streams.transport import keys
from celery_streams.transport.lease import Lease
from celery_streams.transport.queues import Ack

#: Seconds, more than enough, from the end of a job to its acknowledgement in a thread of a pool.
MOMENT = 0.1


class QoS(redis.QoS):
    """The messages that were delivered and not acknowledged, each under its lease.

    Those of queues that are kombu's lists are kombu's to look after.
    """

    #: Those whose channels were closed, and who still have something to tell Redis.
    closed: ClassVar[set["QoS"]] = set()

    # What the type stubs leave out of kombu's class.
    channel: Any
    _delivered: Any
    _dirty: set[str]
    _flush: Callable[[], None]
    _on_collect: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pid = os.getpid()
        #: Acknowledged, and not yet told to Redis. Threads append to it.
        self.ended: deque[Ack] = deque()
        self._lease: Lease | None = None
        #: For leases, and for whatever comes after the channel is closed.
        self.client: Any = None
        #: Fetched, and not yet delivered: a pool may run a job where it is delivered.
        self._expected: set[str] = set()
        self._is_closed = False
        #: What its worker went on with when the channel was closed, and whether it surely runs.
        self._kept: dict[str, bool] = {}
        self._owes_the_rest = False
        #: Held by the thread that tells Redis what is left to be told: what it just acknowledges
        #: must not be handed back by another.
        self._telling = RLock()

    # Under a lease -------------------------------------------------------------------

    def expect(self, tags: Iterable[str]) -> None:
        """Note messages that will be delivered; their leases are renewed from now on."""
        self._expected = set(tags)
        if self._lease is None and self._expected:
            self._begin_lease()

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that was delivered."""
        if not keys.is_tag(delivery_tag):
            super().append(message, delivery_tag)  # writes it down
            return
        virtual.QoS.append(self, message, delivery_tag)
        self._expected.discard(delivery_tag)
        if self._lease is None:
            self._begin_lease()

    def _begin_lease(self) -> None:
        channel = self.channel
        self.client = channel.new_client()
        self._lease = Lease(self.client, channel.consumer, channel.lease, self._held)
        self._lease.start()

    def _held(self) -> set[str] | None:
        """Return what is held, or None when nothing will be any more."""
        if not self._is_closed:
            held = (set(self._delivered) - set(self._dirty)) | self.tags_ended()
            return {tag for tag in held if keys.is_tag(tag)} | self._expected
        with self._telling:
            return self._held_when_closed()

    def _held_when_closed(self) -> set[str] | None:
        # Closed by a lost connection: what its worker began before goes on, and what it
        # acknowledges since is told by this thread alone. That comes last.
        had_some = bool(self._kept)
        running = worker_state.running()
        for tag, runs_surely in [*self._kept.items()]:
            if not runs_surely and tag not in running:
                self._kept.pop(tag, None)
        if self._owes_the_rest:
            self._release_the_rest()
        self.channel.acknowledge()
        if had_some or self.ended:
            return set(self._kept)
        self.closed.discard(self)
        return None

    def _release_the_rest(self) -> None:
        # After a crash it stays under its lease, as after SIGKILL: it then counts as delivered.
        if not worker_state.has_crashed():
            self.channel.release_all({*self._kept, *self.tags_ended()})
        self._owes_the_rest = False

    def tags_ended(self) -> set[str]:
        """Return the tags of what is acknowledged, and not yet told to Redis."""
        return {ended.tag for ended in self.ended.copy()}

    def can_consume(self) -> bool:
        """Tell whether the channel may fetch."""
        return bool(self.can_consume_max_estimate() != 0)

    def can_consume_max_estimate(self) -> Any:
        """Return how many messages the channel may fetch; None for any number."""
        if not self.prefetch_count:
            return None
        # What was fetched before a connection was lost, and still runs, counts.
        held = len(self._delivered) - len(self._dirty)
        held += sum(len(each._kept) for each in [*self.closed])  # noqa: SLF001 - of this class
        return max(self.prefetch_count - held, 0)

    # Give back -----------------------------------------------------------------------

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message: with the next fetch, or at once where none is to come."""
        if not keys.is_tag(delivery_tag):
            super().ack(delivery_tag)
            return
        # Before its job begins: one that ends the worker must not run again.
        is_early = getattr(self._delivered.get(delivery_tag), "acks_early", False)
        self.ended.append(Ack(delivery_tag))
        self._kept.pop(delivery_tag, None)
        virtual.QoS.ack(self, delivery_tag)
        if not self._is_closed and (is_early or not self.channel.fetches_soon()):
            self.channel.acknowledge()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT002 - kombu's
        """Give a message back, to be delivered again; or lay it among the dead letters."""
        if not keys.is_tag(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)
            return
        if requeue:
            self.channel.requeue(delivery_tag)
        else:
            self.channel.bury(delivery_tag, "rejected by the worker")
        self._is_gone(delivery_tag)

    def dead_letter(self, delivery_tag: str, reason: str) -> None:
        """Lay a message among the dead letters."""
        self.channel.bury(delivery_tag, reason)
        self._is_gone(delivery_tag)

    def _is_gone(self, delivery_tag: str) -> None:
        self._kept.pop(delivery_tag, None)
        virtual.QoS.ack(self, delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Hand back all that is held."""
        self._flush()
        self.channel.release(tag for tag in self._delivered if keys.is_tag(tag))
        for tag in [tag for tag in self._delivered if not keys.is_tag(tag)]:
            self.restore_by_tag(tag, client=client)
        self._delivered.clear()

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Give back what was taken from kombu's lists; `Channel.maintain` does all else."""
        if self.channel.has_lists:
            super().restore_visible(*args, **options)

    def release_waiting(self) -> None:
        """Hand back what was not begun: the worker ends, and others are to begin it."""
        worker_state.run_what_is_ready()
        waiting = set(self._delivered) - self._dirty - set(worker_state.in_pool())
        if waiting:
            # A job that has just ended is in no pool any more, and acknowledged in a moment; and
            # a thread that it leaves free begins the next.
            sleep(MOMENT)
            worker_state.run_what_is_ready()
            waiting -= self._dirty | worker_state.running()
        self.channel.release_all((set(self._delivered) - waiting) | self.tags_ended())
        for tag in waiting:
            virtual.QoS.ack(self, tag)

    @classmethod
    def tell_the_last(cls) -> None:
        """Tell Redis at the end of a worker what closed channels still have to."""
        for qos in [*cls.closed]:
            with suppress(OSError, RedisError):
                qos.channel.acknowledge()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Hand back what the channel's consumer holds, but for jobs that run on; once."""
        self._on_collect.cancel()
        if self._is_closed or self._pid != os.getpid():
            return
        self._flush()
        is_last = worker_state.is_stopping()
        begun = {} if is_last else worker_state.in_pool()
        self._kept = {tag: begun[tag] for tag in self._delivered if tag in begun}
        with self._telling, suppress(OSError, RedisError):  # told later; or the lease runs out
            self._is_closed = self._owes_the_rest = True
            self.closed.add(self)
            for tag in [tag for tag in self._delivered if not keys.is_tag(tag)]:
                self.restore_by_tag(tag)
            self.channel.acknowledge()
            self._release_the_rest()
        if is_last:
            self.tell_the_last()
        is_done = not (self._kept or self.ended or self._owes_the_rest)
        if is_last or is_done or not self._lease:
            self.closed.discard(self)
            if self._lease:
                self._lease.end()
