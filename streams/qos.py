"""What a channel's consumer holds, and how it gives it back."""

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kombu.transport import redis, virtual
from redis.exceptions import RedisError

from streams import jobs
from streams.lease import Lease


class QoS(redis.QoS):
    """The messages that were delivered and not acknowledged, each under its lease."""

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
        self.acknowledged: deque[str] = deque()
        self._lease: Lease | None = None
        #: For leases, and for whatever comes after the channel is closed.
        self.client: Any = None
        self._is_closed = False
        #: What its worker went on with when the channel was closed.
        self._kept: set[str] = set()

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that was delivered; its lease is renewed from now on."""
        virtual.QoS.append(self, message, delivery_tag)  # kombu's own for Redis writes it down
        if self._lease is None:
            channel = self.channel
            self.client = channel.new_client()
            self._lease = Lease(self.client, channel.consumer, channel.lease, self._held)
            self._lease.start()

    def _held(self) -> set[str] | None:
        """Return what is held, or None when nothing will be any more."""
        if not self._is_closed:
            return (set(self._delivered) - set(self._dirty)) | set(self.acknowledged)
        # Closed by a lost connection: what its worker began before goes on, and what it
        # acknowledges since is told by this thread alone. That comes last.
        had_some = bool(self._kept)
        self._kept &= jobs.running()
        self.channel.acknowledge()
        return self._kept if had_some or self.acknowledged else None

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message: with the next fetch, or at once where none is to come."""
        self.acknowledged.append(delivery_tag)
        self._kept.discard(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        if not self._is_closed and not self.channel.fetches_soon():
            self.channel.acknowledge()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT002 - kombu's
        """Give a message back, to be delivered again; or lay it among the dead letters."""
        self._kept.discard(delivery_tag)
        if requeue:
            self.channel.requeue(delivery_tag)
        else:
            self.channel.bury(delivery_tag, "rejected by the worker")
        virtual.QoS.ack(self, delivery_tag)

    def dead_letter(self, delivery_tag: str, reason: str) -> None:
        """Lay a message among the dead letters."""
        self._kept.discard(delivery_tag)
        self.channel.bury(delivery_tag, reason)
        virtual.QoS.ack(self, delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Hand back all that is held."""
        self._flush()
        self.channel.hand_back(tuple(self._delivered))
        self._delivered.clear()

    def hand_back_waiting(self) -> None:
        """Hand back what was not begun: the worker ends, and others are to begin it."""
        begun = jobs.in_pool()
        self.channel.hand_back_all(begun)
        for tag in (self._held() or set()) - begun:
            virtual.QoS.ack(self, tag)

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Do nothing: `Channel.tend` sees to what dead consumers held."""

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Hand back what the channel's consumer holds, but for jobs that run on; once."""
        self._on_collect.cancel()
        if self._is_closed or self._pid != os.getpid():
            return
        self._flush()
        held = set(self._delivered)
        self._kept = set() if jobs.is_stopping() else held & jobs.in_pool()
        self._is_closed = True
        with suppress(OSError, RedisError):  # the lease runs out, and others take them
            self.channel.acknowledge()
            self.channel.hand_back_all(self._kept | set(self.acknowledged))
        if self._lease and not self._kept and not self.acknowledged:
            self._lease.end()
