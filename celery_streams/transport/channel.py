"""Kombu's channel on Redis, with streams in place of lists for queues that are durable."""

import logging
import math
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import chain, count
from queue import Empty
from time import monotonic, sleep, time
from typing import Any, NamedTuple
from uuid import uuid4

from kombu.exceptions import BatchPublishError  # type: ignore[attr-defined]
from kombu.transport import redis, virtual
from kombu.utils.json import dumps
from redis import ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from celery_streams import address, scripts, worker_state
from celery_streams.compression import decompress
from celery_streams.errors import MessageTooLarge, Unreadable
from celery_streams.protocol import pack
from celery_streams.retries import retry_while_refused
from celery_streams.transport import eta, keys, purge, queues
from celery_streams.transport.qos import QoS
from celery_streams.transport.queues import Ack, Entry, Lengths, Queues, UniqueKey
from celery_streams.transport.revocation import Revoked, record
from celery_streams.transport.validation import (
    MAX_BYTES,
    Malformed,
    check,
    check_parsed,
    sender,
    too_large,
)

logger = logging.getLogger(__name__)

#: Seconds ahead of its time up to which a message is published to its stream: whoever fetches it
#: puts it off, and knows its moment before the next round.
AHEAD = 2.0
#: Seconds ahead of its time that a message is delivered at most: for as long, its worker waits. The
#: server's clock is not known more exactly.
EARLY = 0.1
#: Seconds between two rounds of maintenance.
ROUND = 1.0
#: Milliseconds that a queue with `x-expires` lasts at least, for rounds renew it; and at most.
SHORTEST_LIFETIME, LONGEST_LIFETIME = 2000, 10**14
#: Most messages of one fetch where no limit is set, and most that it acknowledges: Lua passes
#: no more than some thousand arguments.
BATCH = 1000
#: Seconds without a sign of life, at least, after which a consumer that holds nothing is forgotten.
FORGOTTEN = 60.0
#: Seconds of a fetch where a channel takes turns between streams and lists.
TURN = 0.1
#: Seconds after which the reply to a fetch that has ended is given up, with its connection.
LATE = 2.0
#: Seconds that a fetch waits at least.
SHORTEST_WAIT = 0.001
#: Seconds before the same complaint of the server is logged again.
COMPLAINT_INTERVAL = 60.0
#: Seconds after which whoever waits for a job is told of it, whatever else a fetch brought.
PATIENCE = 0.01
#: Seconds that jobs gather where one had come while the one before it ran: a fetch for each costs
#: both sides five times as much, and takes it from the program that submits them.
GATHER = 0.001
#: AMQP's number for a message that need not survive the server.
_TRANSIENT = 1

_token = uuid4().hex[:8]
_number = count(1)


class DeadMessage(NamedTuple):
    """A message that went to the dead letters."""

    queue: str
    #: Whose job it is, if that can be read.
    job_id: str | None
    reason: str
    #: The message, as far as it can be read.
    envelope: Mapping[str, Any]


class Message(virtual.Message):
    """A message whose body is decompressed within the channel's bound."""

    # What the type stubs have otherwise.
    body: Any
    errors: Any

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        headers = payload.get("headers") or {}
        method = headers.get("compression")
        if not method:
            super().__init__(payload, channel=channel, **options)
            return
        # Kombu decompresses by this header, without a bound.
        super().__init__(
            {**payload, "headers": {**headers, "compression": None}}, channel=channel, **options
        )
        self._raw = payload
        self.headers = headers
        try:
            self.body = decompress(self.body, method, channel.max_message_bytes)
        except Unreadable:
            self.errors.append(sys.exc_info())


class Channel(address.NamedUser, redis.Channel):
    """A channel whose durable queues are streams."""

    Message = Message
    QoS = QoS
    #: Seconds after which others take over what a consumer held that gives no sign of life.
    lease = 15.0
    #: How often a message is delivered to workers that die of it, or give it back.
    max_deliveries = 3
    #: Messages of one priority that a queue takes before it refuses more.
    queue_max_length = 1_000_000
    #: Bytes of a message, as it is stored; of its body, decompressed, too.
    max_message_bytes = MAX_BYTES
    #: Called with each message before it goes to the dead letters; what that returns is called
    #: afterwards, when the message can do no harm any more.
    on_dead_letter: Callable[[DeadMessage], Callable[[], object] | None] | None = None
    #: Runs jobs where they are fetched.
    inline: Any = None
    #: The app whose callers are told of jobs that are purged; None for Celery's current one.
    app: Any = None
    #: What the worker has read of the revoked jobs.
    revoked: Revoked | None = None

    from_transport_options = (
        *redis.Channel.from_transport_options,
        *("lease", "max_deliveries", "queue_max_length", "max_message_bytes"),
    )

    # What the type stubs leave out of kombu's class.
    active_queues: Any
    client: Any
    connection: Any
    connection_errors: tuple[type[BaseException], ...]
    global_keyprefix: str
    priority_steps: list[int]
    qos: Any
    _qos: Any
    _active_queues: list[str]
    _expires: dict[str, int]
    _fanout_queues: dict[str, Any]
    _flush_brpop_reauth: Callable[[], None]
    _q_for_pri: Callable[[str, int], str]
    _connparams: Callable[..., dict[str, Any]]
    _in_poll: Any
    _queue_cycle: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        #: How Redis knows this consumer: one a channel.
        self.consumer = f"{socket.gethostname()}:{os.getpid()}:{_token}-{next(_number)}"
        self._commands: Any = None
        self._no_ack: set[str] = set()
        #: Milliseconds that the messages of a queue may wait, if it was declared so.
        self.message_lifetimes: dict[str, int] = {}
        #: All streams that it may hold messages of.
        self._mine: set[str] = set()
        # A fetch of what is there comes first; where that is all, one that waits.
        self._waits = False
        #: Whether the next reply is that to an acknowledgement sent ahead of a fetch that waits.
        self._is_ahead = False
        #: The fetch under way: from which streams (none: from lists), how many messages at
        #: most, and what it acknowledges.
        self._asked: tuple[str, ...] = ()
        self._most = 0
        self._ending: list[Ack] = []
        self._lists_turn = False
        #: Fetched, and to be delivered by the next calls, where a program takes one at a time.
        self._kept: deque[Entry] = deque()
        #: Until when the fetch under way waits.
        self._waits_until = 0.0
        #: When leases are looked at: after those who are alive had time to renew theirs.
        self._takes_over_at = math.inf
        self._next_round = 0.0
        #: When something is due, or was left to promote.
        self._next_promotion = math.inf
        self._pause_until = 0.0
        self._complaints: dict[str, float] = {}
        #: What the server's clock is ahead of ours, in seconds.
        self._server_ahead = 0.0
        super().__init__(*args, **options)
        #: How its server is reached.
        self.connection_parameters = self._connparams()
        self._queues = Queues(
            lambda: self._plain, self.priority_steps, self._q_for_pri, self.global_keyprefix
        )

    def _is_listed(self, queue: str) -> bool:
        """Tell whether a queue is not durable, and thus a list of kombu's."""
        if self.connection is None:
            raise RedisConnectionError("the channel is closed")
        return queue in self.connection.transient_queues

    @property
    def has_lists(self) -> bool:
        """Tell whether the channel consumes from a queue that is a list."""
        return any(map(self._is_listed, self.active_queues))

    @property
    def _durable_queues(self) -> list[str]:
        return [queue for queue in self.active_queues if not self._is_listed(queue)]

    # Clients -------------------------------------------------------------------------

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT002 - kombu's
        """Return a client of the channel's pool, for commands the same one every time.

        Kombu makes one a command: a tenth of what a job costs a worker's main process.
        """
        if asynchronous:  # kombu's word for blocking fetches, each on a client of its own
            return super()._create_client(asynchronous)  # type: ignore[misc]  # not in the stubs
        if self._commands is None or self._commands.connection_pool is not self.pool:
            self._commands = super()._create_client()  # type: ignore[misc]  # not in the stubs
        return self._commands

    def new_client(self) -> Any:
        """Return a client with a connection of its own, which outlives the channel."""
        return Redis(connection_pool=ConnectionPool(**self.connection_parameters))

    @property
    def _plain(self) -> Any:
        """A client that adds no prefix to keys: our own scripts take whole ones."""
        if self.closed:  # a job that ran on is acknowledged
            return self.qos.client
        return Redis(connection_pool=self.pool) if self.global_keyprefix else self._create_client()

    # Publish -------------------------------------------------------------------------

    def _new_queue(self, queue: str, auto_delete: bool = False, **options: Any) -> None:  # noqa: FBT002 - kombu's
        super()._new_queue(queue, auto_delete=auto_delete, **options)
        is_transient = auto_delete or options.get("exclusive") or not options.get("durable", True)
        known = self.connection.transient_queues
        (known.add if is_transient else known.discard)(queue)
        lifetime = eta.milliseconds((options.get("arguments") or {}).get("x-message-ttl"))
        if lifetime is None:
            self.message_lifetimes.pop(queue, None)
        else:
            self.message_lifetimes[queue] = lifetime

    def _put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        """Append a message to its queue.

        Raises Malformed for what no worker could take, MessageTooLarge, QueueFull, or redis-py's
        errors.

        What need not survive the server, or goes to a queue that does not, is left to kombu's
        list: a stock program may wait there for its reply. What reaches the list of a durable queue
        is moved within a second.
        """
        text = self._text_of(message)
        if self._is_listed(queue) or message["properties"].get("delivery_mode") == _TRANSIENT:
            super()._put(queue, message, **options)
            return
        due = eta.due(message)
        publication = (
            *(queue, self._step(message), self.queue_max_length, text),
            due if due > time() + AHEAD else 0,
        )
        batch = options.get("_publish_batch")
        if batch is None:
            retry_while_refused(partial(self._queues.publish, *publication))
            self._renew(queue)
            return
        script, key, argv = self._queues.publication(*publication)
        # Kombu's pipeline adds the prefix to each first key.
        batch.add("evalsha", script.digest, 1, key.removeprefix(self.global_keyprefix), *argv)
        if queue in self._expires:
            script, (key, *names), argv = self._queues.expiry(queue, self._lifetime(queue))
            key = key.removeprefix(self.global_keyprefix)
            batch.add("evalsha", script.digest, 1 + len(names), key, *names, *argv)

    def _lifetime(self, queue: str) -> int:
        """Return for how many milliseconds a queue lasts that nobody uses."""
        return max(SHORTEST_LIFETIME, min(self._expires[queue], LONGEST_LIFETIME))

    def _renew(self, queue: str) -> None:
        """Have a queue that expires last for its whole lifetime from now."""
        if queue in self._expires:
            self._tried(self._queues.expire, queue, self._lifetime(queue))

    def _create(self, queue: str) -> None:
        self._queues.create(queue)
        self._renew(queue)

    def publish_once(self, queue: str, message: dict[str, Any], unique: UniqueKey) -> str:
        """Append a message to its queue unless it was; return what was noted with it then.

        Raises what `_put` raises. Only a durable queue knows what it was given, and only of
        messages that are not for later: any other message is published each time.
        """
        text = self._text_of(message)
        if not queue or self._is_listed(queue) or eta.due(message):
            where = message["properties"]["delivery_info"]
            self.basic_publish(message, where["exchange"], where["routing_key"])
            return unique.note
        return self._queues.publish_once(
            queue, self._step(message), self.queue_max_length, text, unique
        )

    def _text_of(self, message: dict[str, Any]) -> str:
        """Return a message as it is stored; raises Malformed or MessageTooLarge."""
        check_parsed(message)
        text: str = dumps(message)
        if len(text) > self.max_message_bytes:
            raise MessageTooLarge(too_large(len(text), self.max_message_bytes))
        return text

    def _step(self, message: Any) -> int:
        step: int = self.priority(self._get_message_priority(message, reverse=False))
        return step

    def create_publish_batch(self, max_size: int) -> Any:
        """Return a batch whose commands name the scripts by their digests."""
        for script in (scripts.PUBLISH, scripts.PUBLISH_DELAYED, scripts.EXPIRE):
            self._plain.script_load(script.source)
        return PublishBatch(self, max_size)

    # Consume -------------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **options: Any) -> Any:
        """Consume from a queue; raises ServerTooOld where the server cannot do it."""
        if queue not in self._fanout_queues and not self._is_listed(queue):
            uptime = self.connection.check_server(self._plain)
            patience = max(self.lease / 3, self.lease - uptime)
            self._takes_over_at = min(self._takes_over_at, monotonic() + patience)
            self._mine.update(self._queues.streams(queue))
            if no_ack:
                self._no_ack.add(queue)
        return super().basic_consume(queue, no_ack, *args, **options)

    def _basic_cancel(self, consumer_tag: str) -> None:
        super()._basic_cancel(consumer_tag)  # type: ignore[misc]
        if self._kept:
            self._keep(())  # for consumers that are left
        if self._qos and not self._consumers and worker_state.is_stopping():
            self._finish_fetch()
            with suppress(OSError, RedisError):
                self.acknowledge()
                self._qos.release_waiting()
            self._qos.tell_the_last()

    @property
    def _takes_one(self) -> bool:
        """Return True if a program calls for each message, and no event loop or worker does."""
        return self.inline is None and self.connection.loop_thread is None

    def fetches_soon(self) -> bool:
        """Tell whether an event loop fetches soon, and takes what is acknowledged along."""
        return (
            self.connection is not None
            and self.connection.loop_thread == threading.get_ident()
            and bool(self._consumers)
            and not worker_state.is_stopping()
        )

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send a fetch; kombu's name for it."""
        if self._kept or monotonic() < self._pause_until:
            return
        active = self._queue_cycle.consume(len(self.active_queues))
        listed = [queue for queue in active if self._is_listed(queue)]
        durable = [queue for queue in active if not self._is_listed(queue)]
        if not active:
            return
        seconds = timeout or self.brpop_timeout
        if listed and durable:
            seconds, self._lists_turn = TURN, not self._lists_turn
        if self._takes_one:  # and waits no longer than it was told to; 0 is for ever
            seconds = max(min(seconds, self.connection.cycle.seconds), SHORTEST_WAIT)
        if listed and (self._lists_turn or not durable):
            self._fetch_from_lists(listed, seconds)
        else:
            self._fetch_from_streams(durable, seconds)

    def _fetch_from_lists(self, listed: list[str], seconds: float) -> None:
        self._asked = ()
        names = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in listed]
        self._send(pack("BRPOP", *(self.global_keyprefix + name for name in names), seconds))
        self._waits_until = monotonic() + seconds

    def _fetch_from_streams(self, durable: list[str], seconds: float) -> None:
        # The most urgent of each queue first.
        steps = zip(*map(self._queues.streams, durable), strict=True)
        self._asked = tuple(chain.from_iterable(steps))
        most = self.qos.can_consume_max_estimate()
        self._most = BATCH if most is None else min(most, BATCH)
        if self._takes_one:
            self._most = 1
        elif self.inline:
            self._most = max(self._most, self.inline.most)
        self._ending = self._some_ended()
        if not self._waits:
            self._send(self._fetch(self._asked, self._most))
            return
        waiting = _waiting(self.consumer, self._asked, self._most, int(1000 * seconds))
        # Both in one go: each one alone costs both sides more than what it does.
        self._send(*([self._fetch((), 0)] if self._ending else []), waiting)
        self._waits_until = monotonic() + seconds

    def _fetch(self, streams: Sequence[str], most: int) -> bytes:
        """Return the command that acknowledges what has ended, and fetches up to so many."""
        names, argv = self._queues.fetching(self.consumer, streams, most, self._ending)
        return pack("EVALSHA", scripts.FETCH.digest, len(names), *names, *argv)

    def _send(self, *commands: bytes) -> None:
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        self._is_ahead = len(commands) > 1
        connection.send_packed_command([b"".join(commands)])

    def _brpop_read(self, **options: Any) -> bool:
        """Read the reply to a fetch and deliver what it brought; raises Empty for nothing."""
        connection, did_not_wait = self.client.connection, self._is_ahead
        if self._is_ahead:
            with suppress(Empty):  # refused: it is sent again, and the reply to the fetch follows
                self._read_reply(connection)
            if not connection.can_read():
                raise Empty
        try:
            reply = self._read_reply(connection)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not self._asked:
            return self._deliver_listed(reply)
        entries = queues.entries(reply)
        self._waits = not entries
        if not entries:
            raise Empty
        if self._takes_one:
            self._keep(entries)
            if self.deliver_kept():
                return True
            raise Empty
        self.qos.expect([entry.tag for entry in entries])
        left_over = self._deliver_all(entries)
        if left_over:
            self.release([entry.tag for entry in left_over])
        self.qos.expect(())
        if self.qos.ended and did_not_wait and self._waits:
            sleep(GATHER)
        if self.qos.ended and self.qos.can_consume() and not worker_state.is_stopping():
            self._brpop_start()  # now: who waits for a result need not wait for the event loop
        return True

    def _read_reply(self, connection: Any) -> Any:
        """Read a reply; what it was to acknowledge, and did not, is so the next time."""
        try:
            reply = connection.read_response()
        except ResponseError as error:
            self._undo_acknowledging()
            self._complain(error)
            raise Empty from None
        except self.connection_errors:
            connection.disconnect()
            self._in_poll = None
            raise
        finally:
            self._is_ahead = False
        self._ending = []
        return reply

    def _deliver_all(self, entries: list[Entry]) -> list[Entry]:
        """Run what is quick, deliver what there is room for, and return what there is none for.

        A fetch brings more than there is room for where it was hoped to be quick, or where it
        waited for several streams at once.
        """
        inline = self.inline if self.inline and self.inline.begin() else None
        left_over = []
        told_at = monotonic()
        for place, entry in enumerate(entries):
            if worker_state.is_stopping() or (inline and inline.is_over):
                left_over += entries[place:]
                break
            queue = self._queues.queue_of(entry.tag)
            if queue not in self.connection._callbacks:  # noqa: SLF001 - cancelled meanwhile
                left_over.append(entry)
            elif not (inline and inline.run(entry)):
                if self.qos.can_consume():
                    self._deliver_entry(entry, queue)
                else:
                    left_over.append(entry)
                told_at = 0.0  # the pool may be this very thread: the next may take long
            if monotonic() - told_at > PATIENCE:
                self.acknowledge()
                told_at = monotonic()
        if inline:
            inline.end(len(entries), is_all=not left_over)
            # Fewer than were asked for: there were no more.
            self._waits = len(entries) < self._most and not left_over
        return left_over

    def _keep(self, entries: Iterable[Entry]) -> None:
        """Keep messages for the next calls, and release those whose consumers are gone."""
        kept = [*self._kept, *entries]
        consumed = self.connection._callbacks  # noqa: SLF001 - kombu has no other name
        self._kept = deque(each for each in kept if self._queues.queue_of(each.tag) in consumed)
        self.qos.expect(entry.tag for entry in self._kept)
        if gone := [each.tag for each in kept if each not in self._kept]:
            self.release(gone)

    def deliver_kept(self) -> bool:
        """Deliver the next message that is kept; return False if there is nothing to deliver."""
        while self._kept and self.qos.can_consume():
            entry = self._kept.popleft()
            self.qos.expect(each.tag for each in self._kept)
            if self._deliver_entry(entry, self._queues.queue_of(entry.tag)):
                return True
        return False

    def end_fetch(self) -> None:
        """End a fetch from streams, and keep what it brought: no call may follow for long."""
        if self._in_poll and self._asked and self._takes_one:
            self._keep(self._finish_fetch())

    def _deliver_entry(self, entry: Entry, queue: str) -> bool:
        """Hand a message to the queue's consumer; return False if it is not to be delivered."""
        message = self._checked(entry, queue)
        if message is None:
            return False
        self._queue_cycle.rotate(queue)
        if queue in self._no_ack:  # whatever its consumer makes of it
            self.qos.ended.append(Ack(entry.tag))
            if not self.fetches_soon():
                self.acknowledge()
        self.connection._deliver(message, queue)  # noqa: SLF001 - kombu's
        return True

    def _checked(self, entry: Entry, queue: str) -> Any:
        """Return a message as kombu takes it; None if it is not to be delivered (yet)."""
        try:
            message = check(entry.message, self.max_message_bytes)
        except Malformed as error:
            self._answer(DeadMessage(queue, error.job_id, str(error), {}), entry.tag)
            return None
        due = eta.due(message)
        if due and self._seconds_until(due) > EARLY:
            self._tried(self._queues.delay, entry.tag, self._step(message), due)
            self._renew(queue)
            self._promote_at(due)
            return None
        if self._is_too_old(entry, queue, message):
            self._drop(entry.tag, queue, message)
            return None
        headers = message["headers"]
        if abs(self._server_ahead) > EARLY:
            eta.shift(headers, self._server_ahead)
        # The name that RabbitMQ's quorum queues have for it.
        headers.pop("x-delivery-count", None)
        message["properties"]["delivery_tag"] = entry.tag
        if entry.deliveries is not None:
            headers["redelivered"] = message["properties"]["delivery_info"]["redelivered"] = True
            headers["x-delivery-count"] = entry.deliveries
        return message

    def _is_too_old(self, entry: Entry, queue: str, message: Mapping[str, Any]) -> bool:
        """Return True if a message waited for longer than its queue or its sender allows.

        A job that names its end, by `expires`, is revoked by its worker, as Celery does it.
        """
        named = None
        if not message["headers"].get("expires"):
            named = eta.milliseconds(message["properties"].get("expiration"))
        allowed = [each for each in (named, self.message_lifetimes.get(queue)) if each is not None]
        if not allowed:
            return False
        since = int(keys.place(entry.tag)[1].partition("-")[0])
        return -self._seconds_until(since / 1000) > min(allowed) / 1000 + EARLY

    def _drop(self, tag: str, queue: str, message: Mapping[str, Any]) -> None:
        """Drop a message that is too old; a job has a caller, and becomes a dead letter."""
        job_id, _ = sender(message)
        if job_id and "task" in message["headers"]:
            reason = "it waited for longer than its expiration, or its queue's message_ttl"
            self._answer(DeadMessage(queue, job_id, reason, message), tag)
            return
        self.qos.ended.append(Ack(tag))
        if not self.fetches_soon():
            self.acknowledge()

    def _deliver_listed(self, reply: Any) -> bool:
        if not reply:
            raise Empty
        name, text = reply
        queue = name.decode().removeprefix(self.global_keyprefix).rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        try:
            message = check(text, self.max_message_bytes)
        except Malformed as error:
            logger.warning("dropped a message of %s: %s", queue, error)
        else:
            self.connection._deliver(message, queue)  # noqa: SLF001 - kombu's
        return True

    def _receive_one(self, client: Any) -> Any:
        try:
            return super()._receive_one(client)  # type: ignore[misc]  # not in the stubs
        except RecursionError:  # of kombu's parser, which is ready for what is no JSON at all
            logger.warning("dropped a message to all consumers: it is nested too deeply")
            return False

    def _deliver_fanout_message(self, message: Any, exchange: str) -> Any:
        try:
            check_parsed(message)
        except Malformed as error:
            logger.warning("dropped a message of the exchange %s: %s", exchange, error)
            return False
        return super()._deliver_fanout_message(message, exchange)  # type: ignore[misc]

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        """Return one message; raises Empty if there is none."""
        if self._is_listed(queue):
            return super()._get(queue)
        self._mine.update(self._queues.streams(queue))
        self.acknowledge()
        try:
            self._promote(queue)
            self._reclaim(queue)
            return self._get_one(queue)
        except ResponseError as error:
            if not queues.is_without_group(error):
                raise
            self._create(queue)
            return self._get_one(queue)
        finally:
            self._renew(queue)

    def _get_one(self, queue: str) -> Any:
        while entry := self._next_entry(queue):
            message = self._checked(entry, queue)
            if message is not None:
                return message
        raise Empty

    def _next_entry(self, queue: str) -> Entry | None:
        for entry in self._kept:
            if self._queues.queue_of(entry.tag) == queue:
                self._kept.remove(entry)
                return entry
        fetched = self._queues.fetch(self.consumer, self._queues.streams(queue), 1)
        return fetched[0] if fetched else None

    def basic_get(self, queue: str, no_ack: bool = False, **options: Any) -> Any:  # noqa: FBT002 - kombu's
        """Return one message, or None."""
        message = super().basic_get(queue, no_ack=no_ack, **options)
        if message is not None and no_ack and keys.is_tag(str(message.delivery_tag)):
            self.qos.ended.append(Ack(str(message.delivery_tag)))
            self.acknowledge()
        return message

    # Give back -----------------------------------------------------------------------

    def acknowledge(self) -> None:
        """Tell Redis now of what was acknowledged; what fails is kept for the next time."""
        while self.qos.ended:
            some = self._some_ended()
            try:
                self._queues.fetch(self.consumer, (), 0, some)
            except ResponseError as error:
                self.qos.ended.extendleft(some)
                self._complain(error)
                break
            except BaseException:
                self.qos.ended.extendleft(some)
                raise

    def _some_ended(self) -> list[Ack]:
        some: list[Ack] = []
        with suppress(IndexError):  # no more: another thread may have taken some
            while len(some) < BATCH:
                some.append(self.qos.ended.popleft())
        return some

    def _undo_acknowledging(self) -> None:
        self.qos.ended.extendleft(self._ending)
        self._ending = []

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self._in_poll is connection:
            self._undo_acknowledging()
        super()._on_connection_disconnect(connection)  # type: ignore[misc]

    def release(self, tags: Iterable[str], deliveries: int = 0) -> None:
        """Hand messages back, to be fetched before all others."""
        self._tried(self._queues.release, tags, deliveries)

    def release_all(self, kept: Iterable[str]) -> None:
        """Hand back all that Redis knows this consumer to hold, but for what is kept."""
        self._tried(self._queues.release_all, self.consumer, self._mine, kept)

    def requeue(self, tag: str) -> None:
        """Hand one message back that counts as delivered, until that was too often."""
        message = self.qos.get(tag)
        deliveries = message.headers.get("x-delivery-count", 0)
        self._count(tag, deliveries, message._raw)  # noqa: SLF001 - kombu's

    def _count(self, tag: str, deliveries: int, envelope: Mapping[str, Any]) -> None:
        if deliveries + 1 < self.max_deliveries:
            self.release([tag], 1)
        else:
            self._answer_too_often(tag, envelope, "its process ended, or the task gave it back")

    def give_back(self, entry: Entry, *, requeue: bool) -> None:
        """Hand back, or lay among the dead letters, what its task did not want to do here."""
        if requeue:
            self._count(entry.tag, entry.deliveries or 0, check(entry.message))
        else:
            self.bury(entry.tag, "rejected by the worker")

    def bury(self, tag: str, reason: str) -> None:
        """Lay a message among the dead letters."""
        self._tried(self._queues.bury, tag, reason)

    def dead_letter(self, delivery_tag: str, reason: str) -> None:
        """Lay a message that was delivered among the dead letters, and acknowledge it."""
        self.qos.dead_letter(delivery_tag, reason)

    def _answer(self, dead: DeadMessage, tag: str) -> None:
        # Answered first: a worker that dies between leaves a letter that is answered twice.
        job = dead.job_id or "unknown"
        logger.error("Job %s of %s is a dead letter: %s", job, dead.queue, dead.reason)
        answer_the_rest = self.on_dead_letter(dead) if self.on_dead_letter else None
        self.bury(tag, dead.reason)
        if answer_the_rest:
            answer_the_rest()

    def _answer_too_often(self, tag: str, envelope: Mapping[str, Any], what: str) -> None:
        reason = f"delivered {self.max_deliveries} times, and each time {what}"
        job_id, _ = sender(envelope)
        self._answer(DeadMessage(self._queues.queue_of(tag), job_id, reason, envelope), tag)

    # Once in a while -----------------------------------------------------------------

    @property
    def next_maintenance(self) -> float:
        """When there is something to maintain, by the monotonic clock."""
        return max(min(self._next_round, self._next_promotion), self._pause_until)

    def maintain(self) -> None:
        """Promote what is due; once a second, do all that has to be done for each queue."""
        now = monotonic()
        if now < self.next_maintenance:
            return
        self._next_promotion = math.inf
        for queue in self._durable_queues:
            self._tried(self._promote, queue)
        if now < self._next_round:
            return
        self._next_round = now + ROUND
        for queue in self._durable_queues:
            self._tried(self._reclaim, queue)
            self._renew(queue)
        if self.revoked:
            self._read_revoked(self.revoked)

    def _read_revoked(self, revoked: Revoked) -> None:
        """Read the ids of revoked jobs; jobs are fetched even where that is refused."""
        try:
            revoked.read(self._plain)
        except ResponseError as error:
            self._log_refusal(error)

    def _seconds_until(self, due: float) -> float:
        """Return for how long a moment lies ahead by the server's clock."""
        return due - time() - self._server_ahead

    def is_due(self, eta: Any) -> bool:
        """Return True if the time that a header names has come."""
        due = eta.moment(eta)
        return due is not None and self._seconds_until(due.timestamp()) <= 0

    def _promote_at(self, due: float) -> None:
        moment = monotonic() + self._seconds_until(due)
        self._next_promotion = min(self._next_promotion, moment)

    def watch_revoked(self, on_revoked: Callable[[list[str]], object]) -> None:
        """Pass on the ids of revoked jobs: all of them now, others within a second."""
        self.revoked = Revoked(on_revoked, self.global_keyprefix)
        self._read_revoked(self.revoked)

    def record_revoked(self, ids: Iterable[str]) -> list[str]:
        """Keep the ids of revoked jobs; return those that were not kept yet."""
        return record(self._plain, ids, self.global_keyprefix)

    def _promote(self, queue: str) -> None:
        promoted = self._queues.promote(queue)
        self._server_ahead = promoted.now - time()
        # The others are to come in between.
        self._promote_at(promoted.now if promoted.is_more else promoted.next_due)

    def _reclaim(self, queue: str) -> None:
        lease = self.lease if monotonic() > self._takes_over_at else 0
        forgotten = max(FORGOTTEN, 4 * self.lease)
        too_often = self._queues.reclaim(
            self.consumer, queue, lease, self.max_deliveries, forgotten
        )
        for entry in too_often:
            try:
                envelope = check(entry.message, self.max_message_bytes)
            except Malformed as error:
                envelope = {"headers": {"id": error.job_id}}
            self._answer_too_often(entry.tag, envelope, "its worker died")

    def _tried(self, function: Callable[..., Any], *args: Any) -> None:
        """Do something with the queues; what the server refuses now is done later, by somebody."""
        try:
            function(*args)
        except ResponseError as error:
            if queues.is_wrong_type(error):  # of one queue; the others' messages are fetched
                self._log_refusal(error)
            else:
                self._complain(error)

    def _complain(self, error: ResponseError) -> None:
        """Mend what can be mended; log what cannot, and leave the server alone for a second."""
        if isinstance(error, NoScriptError):
            self._plain.script_load(scripts.FETCH.source)
            return
        if queues.is_without_group(error):
            try:
                for queue in self._durable_queues:
                    self._create(queue)
            except ResponseError as another:
                error = another
            else:
                return
        if isinstance(error, ReadOnlyError):  # a replica: its name may lead to another server soon
            self.pool.disconnect()
            self.client.connection_pool.disconnect()
        self._pause_until = monotonic() + ROUND
        self._log_refusal(error)

    def _log_refusal(self, error: ResponseError) -> None:
        """Log what the server refuses, once a minute; of a wrong type, which keys have it."""
        text = str(error)
        complaint = text.rpartition(" script: ")[0] or text  # which script, says the rest
        if monotonic() <= self._complaints.get(complaint, 0):
            return
        self._complaints[complaint] = monotonic() + COMPLAINT_INTERVAL
        foreign: list[str] = []
        if queues.is_wrong_type(error):
            foreign = [key for queue in self._durable_queues for key in self.foreign_keys(queue)]
        which = f" ({', '.join(foreign)})" if foreign else ""
        logger.error("the server refuses, trying again every second: %s%s", complaint, which)

    def maybe_refresh_binding_expiry(self) -> None:
        """Keep the bindings of queues that expire; what the server refuses is tried again."""
        try:
            super().maybe_refresh_binding_expiry()  # type: ignore[misc]  # not in the stubs
        except ResponseError as error:
            self._log_refusal(error)

    def delayed_messages(self, most: int) -> list[tuple[float, bytes]]:
        """Return up to so many messages of each queue that are for later, and when they are due."""
        return [
            each for queue in self._durable_queues for each in self._queues.delayed(queue, most)
        ]

    # Whole queues --------------------------------------------------------------------

    def lengths(self, queue: str) -> Lengths:
        """Return how many jobs of a queue wait, are delayed, run, and are dead letters."""
        return self._queues.lengths(queue)

    def foreign_keys(self, queue: str) -> list[str]:
        """Return the keys of a queue's names that hold something else."""
        return self._queues.foreign_keys(queue)

    def lives_for_ever(self, tag: str) -> bool:
        """Return True if no message of an entry's queue is ever too old."""
        return not self.message_lifetimes or (
            self._queues.queue_of(tag) not in self.message_lifetimes
        )

    def _size(self, queue: str) -> int:
        return self._queues.size(queue)

    def _purge(self, queue: str) -> int:
        if self._is_listed(queue):
            return int(super()._purge(queue))
        count = 0
        for messages in self._queues.purge(queue):
            count += len(messages)
            purge.answer(messages, self.app)
        return count

    def queue_delete(self, queue: str, *args: Any, **options: Any) -> None:
        """Delete a queue with all it holds, dead letters excepted."""
        if options.get("if_empty") and self._size(queue):
            return
        super().queue_delete(queue, *args, **options)
        if not self._is_listed(queue):
            self._queues.delete(queue)

    def _has_queue(self, queue: str, **options: Any) -> bool:
        return self._queues.exists(queue) or super()._has_queue(queue, **options)

    def close(self) -> None:
        """Close, and hand back what is held, if Redis answers."""
        self._finish_fetch()
        self._kept.clear()
        if self._qos:  # before its connections are closed
            self._qos.restore_unacked_once()
        super().close()

    def _finish_fetch(self) -> list[Entry]:
        """End the fetch under way, and return what it brought from streams."""
        connection, self._in_poll = self._in_poll, None
        if connection:
            self._undo_acknowledging()  # twice does no harm
            is_ahead, self._is_ahead = self._is_ahead, False
            try:
                if is_ahead:
                    connection.read_response()
                # Which number a connection has, a server tells that speaks the third protocol;
                # any other is waited for, a second at most.
                known = connection.handshake_metadata or {}
                number = known.get(b"id") or known.get("id")
                left = self._waits_until - monotonic()
                if number and left > 0:
                    self._plain.client_unblock(number)
                reply = connection.read_response(timeout=max(left, 0) + LATE)
                if self._asked:
                    return queues.entries(reply)
                if reply:  # of a list: it is nowhere else
                    self._plain.rpush(*reply)
            except (OSError, RedisError):
                connection.disconnect()
        return []


@lru_cache(maxsize=64)
def _waiting(consumer: str, streams: tuple[str, ...], most: int, milliseconds: int) -> bytes:
    """Return the command that waits so long for up to so many messages, the same nearly always."""
    limits = ("COUNT", most, "BLOCK", milliseconds)
    new = (">" for _ in streams)
    return pack("XREADGROUP", "GROUP", keys.GROUP, consumer, *limits, "STREAMS", *streams, *new)


class PublishBatch(redis.PublishBatch):  # type: ignore[name-defined,misc]  # not in the stubs
    """Kombu's batch of messages, sent as one; it says so where a queue is full."""

    def flush(self) -> None:
        """Send what was collected. Raises QueueFull; what came before may have been taken."""
        try:
            super().flush()
        except BatchPublishError as error:
            full = queues.refusal(error.__cause__)
            if full is error.__cause__:
                raise
            raise full from None
