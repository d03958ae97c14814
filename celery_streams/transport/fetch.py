"""The fetch of one channel that is in flight: its command, and its reply."""

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from queue import Empty
from time import monotonic
from typing import Any

from redis.exceptions import RedisError, ResponseError

from celery_streams import scripts
from celery_streams.protocol import pack
from celery_streams.transport import entries, keys
from celery_streams.transport.deliveries import Deliveries
from celery_streams.transport.entries import Ack, Entry
from celery_streams.transport.queues import Queues
from celery_streams.transport.refusals import Refusals

#: Seconds that the reply to a fetch that is ended may take, before its connection is closed.
UNBLOCK_TIMEOUT = 2.0


class Fetch:
    """Fetches from streams, acking what has ended in the same write, or from kombu's lists.

    The first fetch does not wait; if nothing was there, the next one blocks at the server.
    """

    def __init__(
        self,
        queues: Queues,
        deliveries: Deliveries,
        refusals: Refusals,
        connection_errors: tuple[type[BaseException], ...],
    ) -> None:
        self._queues = queues
        self._deliveries = deliveries
        self._refusals = refusals
        self._connection_errors = connection_errors
        #: The connection that the reply will arrive on; None without a fetch in flight.
        self.connection: Any = None
        #: When the command was sent, by the monotonic clock.
        self.sent_at: float | None = None
        #: Whether the next fetch from streams waits for messages.
        self.waits = False
        #: Whether the fetch in flight is from streams, and how many messages it asks for.
        self.is_from_streams = False
        self.limit = 0
        self._acks: list[Ack] = []
        #: Whether a reply to acks alone precedes the reply to the fetch.
        self._acks_precede = False
        self._waits_until = 0.0

    def from_lists(self, connection: Any, names: Sequence[str], seconds: float) -> None:
        """Send a BRPOP that waits for `seconds`."""
        self.is_from_streams = False
        self._send(connection, pack("BRPOP", *names, seconds))
        self._waits_until = monotonic() + seconds

    def from_streams(
        self, connection: Any, streams: Sequence[str], limit: int, seconds: float
    ) -> None:
        """Ack what has ended and fetch up to `limit` messages; if it waits, for `seconds`."""
        self.is_from_streams, self.limit = True, limit
        self._acks = self._deliveries.take_acks()
        if not self.waits:
            self._send(connection, self._command(streams, limit))
            return
        waiting = _waiting(self._deliveries.consumer, tuple(streams), limit, int(1000 * seconds))
        # One write: a second one would cost both sides more than the commands do.
        self._send(connection, *([self._command((), 0)] if self._acks else []), waiting)
        self._waits_until = monotonic() + seconds

    def _command(self, streams: Sequence[str], limit: int) -> bytes:
        names, argv = self._queues.fetching(self._deliveries.consumer, streams, limit, self._acks)
        return pack("EVALSHA", scripts.FETCH.digest, len(names), *names, *argv)

    def _send(self, connection: Any, *commands: bytes) -> None:
        self.connection = connection
        self.sent_at = monotonic()
        self._acks_precede = len(commands) > 1
        connection.send_packed_command([b"".join(commands)])

    def read(self, connection: Any) -> tuple[Any, bool]:
        """Return the reply, and whether acks alone preceded it; raises Empty for a refusal."""
        acks_preceded = self._acks_precede
        if acks_preceded:
            with suppress(Empty):  # refused acks are sent again; the fetch's reply follows
                self._read_reply(connection)
            if not connection.can_read():
                raise Empty
        try:
            return self._read_reply(connection), acks_preceded
        finally:
            self.connection = None

    def _read_reply(self, connection: Any) -> Any:
        try:
            reply = connection.read_response()
        except ResponseError as error:
            self.restore_acks()
            self._refusals.handle(error)
            raise Empty from None
        except self._connection_errors:
            connection.disconnect()
            self.connection = None
            raise
        finally:
            self._acks_precede = False
        self._acks = []
        return reply

    def restore_acks(self) -> None:
        """Keep the acks of this fetch, which may have failed; repeating them does no harm."""
        self._deliveries.restore_acks(self._acks)
        self._acks = []

    def end(self, client: Any) -> list[Entry]:
        """End the fetch in flight, by `client`, and return what it fetched from streams."""
        connection, self.connection = self.connection, None
        if not connection:
            return []
        self.restore_acks()
        acks_precede, self._acks_precede = self._acks_precede, False
        try:
            if acks_precede:
                connection.read_response()
            # A server that speaks RESP3 names the connection's id, and can unblock it; on any
            # other, the fetch ends by itself within a second.
            known = connection.handshake_metadata or {}
            connection_id = known.get(b"id") or known.get("id")
            left = self._waits_until - monotonic()
            if connection_id and left > 0:
                client.client_unblock(connection_id)
            reply = connection.read_response(timeout=max(left, 0) + UNBLOCK_TIMEOUT)
            if self.is_from_streams:
                return entries.fetched(reply)
            if reply:  # a message that was popped from its list
                client.rpush(*reply)
        except (OSError, RedisError):
            connection.disconnect()
        return []


@lru_cache(maxsize=64)
def _waiting(consumer: str, streams: tuple[str, ...], limit: int, milliseconds: int) -> bytes:
    """Return the command of a fetch that waits; cached, for it is nearly always the same."""
    limits = ("COUNT", limit, "BLOCK", milliseconds)
    new = (">" for _ in streams)
    return pack("XREADGROUP", "GROUP", keys.GROUP, consumer, *limits, "STREAMS", *streams, *new)
