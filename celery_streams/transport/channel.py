"""The consuming half of kombu's channel, which adapts kombu's hooks to our objects.

fetch         the command in flight
dispatch      where a fetched message goes
deliveries    what is held until it is acked, released or dead-lettered
maintenance   what is promoted and reclaimed once a second
refusals      what happens when the server refuses a command
"""

import logging
import os
import socket
import sys
import threading
from contextlib import suppress
from itertools import chain, count
from queue import Empty
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from kombu.transport import virtual
from redis.exceptions import RedisError, ResponseError

from celery_streams import worker_state
from celery_streams.compression import decompress
from celery_streams.errors import Unreadable
from celery_streams.transport import entries, keys, queues
from celery_streams.transport.deliveries import Deliveries
from celery_streams.transport.dispatch import Dispatch
from celery_streams.transport.entries import Entry
from celery_streams.transport.fetch import Fetch
from celery_streams.transport.maintenance import Maintenance
from celery_streams.transport.publishing import PublishingChannel
from celery_streams.transport.qos import StreamQoS

logger = logging.getLogger(__name__)

#: Messages of one fetch where there is no prefetch limit.
MAX_FETCH = 1000
#: Seconds that a fetch waits in a channel that alternates between streams and lists.
ALTERNATION = 0.1
#: Seconds that a fetch waits at least: 0 would mean for ever.
MIN_WAIT = 0.001
#: Batching delay, as Nagle's, in seconds: when jobs arrive faster than we fetch, wait so that one
#: fetch serves several. A fetch for each costs both sides five times the CPU.
BATCHING_DELAY = 0.001
_token = uuid4().hex[:8]
_number = count(1)


class Message(virtual.Message):
    """A message whose body is decompressed within the channel's limit."""

    # What the type stubs have otherwise.
    body: Any
    errors: Any

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        headers = payload.get("headers") or {}
        method = headers.get("compression")
        if not method:
            super().__init__(payload, channel=channel, **options)
            return
        # Kombu decompresses by this header, without a limit.
        super().__init__(
            {**payload, "headers": {**headers, "compression": None}}, channel=channel, **options
        )
        self._raw = payload
        self.headers = headers
        try:
            self.body = decompress(self.body, method, channel.max_message_bytes)
        except Unreadable:
            self.errors.append(sys.exc_info())


class Channel(PublishingChannel):
    """The whole channel: what it consumes is held by `deliveries` until it is acked."""

    Message = Message
    QoS = StreamQoS
    #: Seconds without renewal after which a consumer's messages are reclaimed.
    lease = 15.0
    #: Deliveries after which a message is dead-lettered: its workers died of it, or requeued it.
    max_deliveries = 3

    from_transport_options = (
        *PublishingChannel.from_transport_options,
        *("lease", "max_deliveries"),
    )

    # What the type stubs leave out of kombu's class.
    connection_errors: tuple[type[BaseException], ...]
    qos: StreamQoS
    _qos: StreamQoS | None
    _flush_brpop_reauth: Any
    _queue_cycle: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Kombu's belongs to the process, and outlives the queues of other connections.
        self._fanout_queues: dict[str, Any] = self.connection.fanout_queues
        self._lists_turn = False
        #: False if processes of a pool fetch, and this one only maintains the queues.
        self.fetches = True
        #: False if only messages are fetched that were given back, such as permitted ones.
        self.fetches_new = True
        self.deliveries = Deliveries(
            f"{socket.gethostname()}:{os.getpid()}:{_token}-{next(_number)}",
            self.queues,
            self.refusals,
            self._new_client,
            self._fetches_soon,
            lease=self.lease,
            max_deliveries=self.max_deliveries,
        )
        self.maintenance = Maintenance(
            self.queues,
            self.deliveries,
            self.refusals,
            self.durable_queues,
            lambda: self.plain_client,
            lease=self.lease,
            max_message_bytes=self.max_message_bytes,
        )
        self.dispatch = Dispatch(
            self.queues,
            self.deliveries,
            self.refusals,
            self.maintenance,
            consumers=self.connection._callbacks,  # noqa: SLF001 - kombu has no other name
            deliver=self.deliver,
            can_consume=lambda: self.qos.can_consume(),  # noqa: PLW0108 - made when it is used
            message_lifetimes=self.message_lifetimes,
            max_message_bytes=self.max_message_bytes,
        )
        self.fetch = Fetch(self.queues, self.deliveries, self.refusals, self.connection_errors)

    @property
    def plain_client(self) -> Any:
        """A client that adds no prefix to keys; of a closed channel, for acks that come later."""
        return self.deliveries.client if self.closed else super().plain_client

    # Consume ---------------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **options: Any) -> Any:
        """Consume from a queue; raises ServerTooOld."""
        if queue not in self._fanout_queues and not self.is_list(queue):
            self._prepare_to_hold(queue)
            (self.dispatch.no_ack.add if no_ack else self.dispatch.no_ack.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **options)

    def _prepare_to_hold(self, queue: str) -> None:
        if not self.deliveries.streams:
            self.maintenance.delay_reclaim(self.connection.check_server(self.plain_client))
        self.deliveries.streams.update(self.queues.streams(queue))

    def _basic_cancel(self, consumer_tag: str) -> None:
        super()._basic_cancel(consumer_tag)  # type: ignore[misc]
        if self.dispatch.has_kept:
            self.dispatch.keep(())  # for the consumers that are left
        if self._qos and not self._consumers and worker_state.is_stopping():
            self.fetch.end(self.plain_client)
            with suppress(OSError, RedisError):
                self.deliveries.flush()
                self.deliveries.release_waiting()
            self.deliveries.flush_closed()

    @property
    def _takes_one(self) -> bool:
        """Whether the program drains one message per call, without event loop or worker."""
        return self.dispatch.runner is None and self.connection.loop_thread is None

    def _fetches_soon(self) -> bool:
        """Return True if this thread is about to fetch."""
        return self.dispatch.runner is not None or (
            self.connection is not None
            and self.connection.loop_thread == threading.get_ident()
            and bool(self._consumers)
            and not worker_state.is_stopping()
        )

    @property
    def _in_poll(self) -> Any:
        """The connection of the fetch in flight; kombu's name for it."""
        return self.fetch.connection

    @_in_poll.setter
    def _in_poll(self, connection: Any) -> None:
        self.fetch.connection = connection

    @property
    def _brpop_sent_at(self) -> float | None:
        """When the fetch was sent; kombu's name for it."""
        return self.fetch.sent_at

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send a fetch; kombu's name for it."""
        if self.fetches:
            self.start_fetch(self._fetch_limit(), timeout or self.brpop_timeout)

    def start_fetch(self, limit: int, seconds: float) -> None:
        """Send a fetch from the queues that are consumed from, unless there is reason to pause."""
        if self.dispatch.has_kept or monotonic() < self.refusals.pause_until:
            return
        active = self._queue_cycle.consume(len(self.active_queues))
        listed = [queue for queue in active if self.is_list(queue)]
        durable = [queue for queue in active if not self.is_list(queue)]
        if not active:
            return
        if listed and durable:
            seconds, self._lists_turn = ALTERNATION, not self._lists_turn
        if self._takes_one:  # no longer than the program waits
            seconds = max(min(seconds, self.connection.cycle.seconds), MIN_WAIT)
        if listed and (self._lists_turn or not durable):
            names = [self._q_for_pri(each, step) for step in self.priority_steps for each in listed]
            names = [self.global_keyprefix + name for name in names]
            self.fetch.from_lists(self.client.connection, names, seconds)
        else:
            # Of all queues, the most urgent step first.
            streams = self.queues.streams if self.fetches_new else self.queues.returned
            steps = chain.from_iterable(zip(*map(streams, durable), strict=True))
            self.fetch.from_streams(self.client.connection, [*steps], limit, seconds)

    def _fetch_limit(self) -> int:
        if self._takes_one:
            return 1
        limit = self.qos.can_consume_max_estimate()
        return MAX_FETCH if limit is None else min(limit, MAX_FETCH)

    def _brpop_read(self, **options: Any) -> bool:
        """Read the reply to a fetch and deliver what it fetched; raises Empty for nothing."""
        try:
            reply, acks_preceded = self.fetch.read(self.client.connection)
        finally:
            if not self.fetch.connection:
                self._flush_brpop_reauth()
        if not self.fetch.is_from_streams:
            if not (listed := self.read_listed(reply)):
                raise Empty
            self.deliver(*listed)
            return True
        fetched = entries.fetched(reply)
        self.fetch.waits = not fetched
        if not fetched:
            raise Empty
        if self._takes_one:
            self.dispatch.keep(fetched)
            if self.dispatch.deliver_kept():
                return True
            raise Empty
        self.dispatch.deliver_all(fetched)
        if self.deliveries.pending_acks and acks_preceded and self.fetch.waits:
            sleep(BATCHING_DELAY)
        may_fetch = self.qos.can_consume() and not worker_state.is_stopping()
        if self.deliveries.pending_acks and may_fetch:
            self._brpop_start()  # at once: callers wait for the results
        return True

    def end_fetch(self) -> None:
        """End a fetch from streams and keep what it fetched, if the program drains one per call."""
        if self.fetch.connection and self.fetch.is_from_streams and self._takes_one:
            self.dispatch.keep(self.fetch.end(self.plain_client))

    def deliver(self, message: dict[str, Any], queue: str) -> None:
        """Pass a message to the consumer of its queue."""
        self._queue_cycle.rotate(queue)
        self.connection._deliver(message, queue)  # noqa: SLF001 - kombu's

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self.fetch.connection is connection:
            self.fetch.restore_acks()
        super()._on_connection_disconnect(connection)  # type: ignore[misc]

    # Get one message -------------------------------------------------------------------

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        """Return one message; raises Empty."""
        if self.is_list(queue):
            return super()._get(queue)
        self._prepare_to_hold(queue)
        self.deliveries.flush()
        try:
            self.maintenance.promote(queue)
            self.maintenance.reclaim(queue)
            return self._get_one(queue)
        except ResponseError as error:
            if not queues.is_without_group(error):
                raise
            self.queues.create(queue)
            return self._get_one(queue)
        finally:
            self.refusals.attempt(self.queues.renew, queue)

    def _get_one(self, queue: str) -> Any:
        while entry := self._next_entry(queue):
            message = self.dispatch.check(entry, queue)
            if message is not None:
                return message
        raise Empty

    def _next_entry(self, queue: str) -> Entry | None:
        if kept := self.dispatch.take_kept(queue):
            return kept
        fetched = self.queues.fetch(self.deliveries.consumer, self.queues.streams(queue), 1)
        return fetched[0] if fetched else None

    def basic_get(self, queue: str, no_ack: bool = False, **options: Any) -> Any:  # noqa: FBT002 - kombu's
        """Return one message, or None."""
        message = super().basic_get(queue, no_ack=no_ack, **options)
        if message is not None and no_ack and keys.is_tag(str(message.delivery_tag)):
            self.deliveries.ack_later(str(message.delivery_tag))
            self.deliveries.flush()
        return message

    def close(self) -> None:
        """Close, and release what is held, if Redis answers."""
        self.fetch.end(self.plain_client)
        self.dispatch.drop_kept()
        if self._qos:  # while its connections are open
            self._qos.restore_unacked_once()
        super().close()
