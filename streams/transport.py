"""A kombu transport on Redis Streams: what was accepted is delivered until it is acknowledged.

A message is an entry of its queue's stream. A consumer is given it by XREADGROUP, which writes
down at once who has it; it leaves the stream when it is acknowledged. A consumer that died is
known by its lease, which nobody renews any more: others take over what it held.
https://redis.io/docs/latest/develop/data-types/streams/#consumer-groups

What kombu's own transport does for fanout exchanges, bindings and queues that are not durable
(replies to remote control, which stock Celery programs wait for) stays as it is.
"""

import logging
import math
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from queue import Empty
from time import monotonic, time
from typing import Any, NamedTuple
from uuid import uuid4

from kombu.transport import redis, virtual
from kombu.utils.json import dumps
from redis import ConnectionPool, Redis
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from streams import jobs, keys, scripts
from streams.envelope import Malformed, check, check_parsed, sender
from streams.errors import QueueFull, ServerTooOld
from streams.lease import Lease, by_stream

logger = logging.getLogger(__name__)

#: Seconds ahead of its time that a message is delivered: its worker waits for the exact moment.
AHEAD = 2.0
#: Seconds between two rounds of what has to be done once in a while.
ROUND = 1.0
#: Most messages that one round moves, or one fetch brings where no limit is set.
BATCH = 1000
#: Ids in one command: Lua passes no more than some thousand arguments.
MOST_IDS = 1000
#: Dead letters that are kept, about; the oldest go first.
MOST_DEAD = 100_000
#: Seconds without a sign of life, at least, after which a consumer that holds nothing is forgotten.
FORGOTTEN = 60.0
#: Seconds before the same complaint of the server is logged again.
COMPLAINT_INTERVAL = 60.0
#: The oldest servers that can do all that is asked of them.
OLDEST = {"redis": (7, 0), "valkey": (8, 0)}
#: AMQP's number for a message that need not survive the server.
_TRANSIENT = 1

_token = uuid4().hex[:8]
_number = count(1)


class Dead(NamedTuple):
    """A message that went to the dead letters."""

    queue: str
    #: Whose job it is, if that can be read.
    job_id: str | None
    reason: str
    #: The message, as far as it can be read.
    envelope: Mapping[str, Any]


class QoS(redis.QoS):
    """What a channel's consumer holds, and how it gives it back."""

    # What the type stubs leave out of kombu's class.
    channel: "Channel"
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
        # Closed by a lost connection: what its worker began before goes on, and what could not
        # be acknowledged is.
        self.channel.acknowledge()
        self._kept &= jobs.running()
        return self._kept or None

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message: with the next fetch, or at once where none is to come."""
        self._kept.discard(delivery_tag)
        self.acknowledged.append(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        if not self.channel.fetches_soon():
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
            self.channel.hand_back_all(self._kept)
        if self._lease and not self._kept and not self.acknowledged:
            self._lease.end()


class Channel(redis.Channel):
    """A channel whose durable queues are streams."""

    QoS = QoS
    #: Seconds after which others take over what a consumer held that gives no sign of life.
    lease = 15.0
    #: How often a message is delivered to workers that die of it, or give it back.
    max_deliveries = 3
    #: Messages of one priority that a queue takes before it refuses more.
    queue_max_length = 1_000_000
    #: Called with each message of this channel's queues that went to the dead letters.
    on_dead_letter: Callable[[Dead], object] | None = None

    from_transport_options = (
        *redis.Channel.from_transport_options,
        *("lease", "max_deliveries", "queue_max_length"),
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
    _fanout_queues: dict[str, Any]
    _flush_brpop_reauth: Callable[[], None]
    _q_for_pri: Callable[[str, int], str]
    _connparams: Callable[..., dict[str, Any]]
    _in_poll: Any
    _queue_cycle: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        #: How Redis knows this consumer: one a channel.
        self.consumer = f"{socket.gethostname()}:{os.getpid()}:{_token}-{next(_number)}"
        #: When leases are looked at: after those who are alive had time to renew theirs.
        self._takes_over_at = math.inf
        self._commands: Any = None
        self._no_ack: set[str] = set()
        #: All streams that it may hold messages of.
        self._mine: set[str] = set()
        # A fetch of what is there comes first; where there is nothing, one that waits.
        self._waits = False
        self._asked: list[str] = []
        self._acknowledging: list[str] = []
        self._lists_turn = False
        self._next_round = 0.0
        self._pause_until = 0.0
        self._complaints: dict[str, float] = {}
        #: What the server's clock is ahead of ours, in seconds.
        self._server_ahead = 0.0
        super().__init__(*args, **options)
        self._parameters = self._connparams()

    # Names ---------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        return f"{self.global_keyprefix}{name}"

    def _streams(self, queue: str) -> list[str]:
        """Return the streams of a queue in the order that they are fetched from."""
        return [
            self._key(keys.returned(queue)),
            *(self._key(keys.stream(queue, step)) for step in self.priority_steps),
        ]

    def _returned(self, stream: str) -> str:
        return keys.returned(keys.queue_of(stream))

    def _is_listed(self, queue: str) -> bool:
        """Tell whether a queue is not durable, and thus a list of kombu's."""
        return queue in self.connection.transient_queues

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
        return Redis(connection_pool=ConnectionPool(**self._parameters))

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

    def _put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        """Append a message to its queue; raises QueueFull, or redis-py's errors.

        What need not survive the server, or goes to a queue that does not, is left to kombu's
        list: a stock program may wait there for its reply. What reaches the list of a durable queue
        is moved within a second.
        """
        if self._is_listed(queue) or message["properties"].get("delivery_mode") == _TRANSIENT:
            super()._put(queue, message, **options)
            return
        step = self.priority(self._get_message_priority(message, reverse=False))
        text = dumps(message)
        due = _due(message)
        script, key, argv = (
            (scripts.DELAY, keys.delayed(queue), (due, step, text))
            if due > time() + AHEAD
            else (scripts.PUBLISH, keys.stream(queue, step), (text,))
        )
        batch = options.get("_publish_batch")
        if batch is not None:
            batch.add("evalsha", script.digest, 1, self._key(key), self.queue_max_length, *argv)
            return
        try:
            script(self._plain, [self._key(key)], self.queue_max_length, *argv)
        except ResponseError as error:
            raise _full(error) from None

    def create_publish_batch(self, max_size: int) -> Any:
        """Return kombu's batch, whose commands name the scripts by their digests."""
        for script in (scripts.PUBLISH, scripts.DELAY):
            self._plain.script_load(script.source)
        return super().create_publish_batch(max_size)  # type: ignore[misc]

    # Consume -------------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **options: Any) -> Any:
        """Consume from a queue; raises ServerTooOld where the server cannot do it."""
        if queue not in self._fanout_queues and not self._is_listed(queue):
            uptime = self.connection.check_server(self._plain)
            patience = max(self.lease / 3, self.lease - uptime)
            self._takes_over_at = min(self._takes_over_at, monotonic() + patience)
            self._mine.update(self._streams(queue))
            if no_ack:
                self._no_ack.add(queue)
        return super().basic_consume(queue, no_ack, *args, **options)

    def _basic_cancel(self, consumer_tag: str) -> None:
        super()._basic_cancel(consumer_tag)  # type: ignore[misc]
        if self._qos and not self._consumers and jobs.is_stopping():
            self._finish_fetch()
            with suppress(OSError, RedisError):
                self.acknowledge()
                self._qos.hand_back_waiting()

    def fetches_soon(self) -> bool:
        """Tell whether an event loop fetches soon, and takes what is acknowledged along."""
        return (
            self.connection is not None
            and self.connection.loop_thread == threading.get_ident()
            and bool(self._consumers)
            and not jobs.is_stopping()
        )

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send a fetch; kombu's name for it."""
        if monotonic() < self._pause_until:
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        listed = [queue for queue in queues if self._is_listed(queue)]
        durable = [queue for queue in queues if not self._is_listed(queue)]
        if listed:
            # Kombu's fetch and ours take turns where a channel consumes from both kinds.
            self._lists_turn = not durable or not self._lists_turn
            if self._lists_turn:
                self._asked = []
                self._start_lists(listed, timeout if not durable else 0.1)
                return
        if not durable:
            return
        per_queue = [self._streams(queue) for queue in durable]
        # The most urgent of each queue first.
        self._asked = [stream for step in zip(*per_queue, strict=True) for stream in step]
        most = self.qos.can_consume_max_estimate()
        self._most = BATCH if most is None else min(most, BATCH)
        if self._waits and not self.qos.acknowledged:
            block = int(1000 * self.brpop_timeout) if not listed else 100
            self._send(
                "XREADGROUP",
                "GROUP",
                keys.GROUP,
                self.consumer,
                "COUNT",
                self._most,
                "BLOCK",
                block,
                "STREAMS",
                *self._asked,
                *(">" for _ in self._asked),
            )
        else:
            names, argv = self._fetch(self._asked, self._most)
            self._send("EVALSHA", scripts.FETCH.digest, len(names), *names, *argv)

    def _start_lists(self, queues: list[str], timeout: float | None) -> None:
        names = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        self._send("BRPOP", *map(self._key, names), timeout or self.brpop_timeout)

    def _send(self, *command: Any) -> None:
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        connection.send_command(*command)

    def _fetch(self, streams: list[str], most: int) -> tuple[list[str], tuple[Any, ...]]:
        """Return the keys and arguments of a fetch, which acknowledges what there is."""
        self._acknowledging = [
            self.qos.acknowledged.popleft()
            for _ in range(min(len(self.qos.acknowledged), MOST_IDS))
        ]
        done = by_stream(self._acknowledging)
        ids = (argument for each in done.values() for argument in (len(each), *each))
        return [*streams, *done], (keys.GROUP, self.consumer, most, len(streams), *ids)

    def _brpop_read(self, **options: Any) -> bool:
        """Read the reply to a fetch and deliver what it brought; raises Empty for nothing."""
        connection = self.client.connection
        try:
            reply = connection.read_response()
        except ResponseError as error:
            self._undo_acknowledging()
            self._complain(error)
            raise Empty from None
        except self.connection_errors:
            self._undo_acknowledging()
            connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        self._acknowledging = []
        if not self._asked:
            return self._deliver_listed(reply)
        fetched = reply.items() if isinstance(reply, dict) else reply or ()
        entries = [(_text(stream), entry) for stream, each in fetched for entry in each]
        self._waits = not entries
        if not entries:
            raise Empty
        # Of several streams at once, a fetch that waits may bring more than was asked for.
        self.hand_back(_tag(stream, entry[0]) for stream, entry in entries[self._most :])
        for stream, (entry_id, fields) in entries[: self._most]:
            self._deliver_entry(stream, _text(entry_id), fields)
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

    def _deliver_listed(self, reply: Any) -> bool:
        if not reply:
            raise Empty
        queue = _text(reply[0]).removeprefix(self.global_keyprefix).rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        try:
            message = check(reply[1])
        except Malformed as error:
            logger.warning("dropped a message of %s: %s", queue, error)
            return True
        self.connection._deliver(message, queue)  # noqa: SLF001 - kombu's
        return True

    def _deliver_entry(self, stream: str, entry_id: str, fields: Any) -> None:
        """Hand a message to the queue's consumer, if there is one and it can be read."""
        queue = keys.queue_of(stream.removeprefix(self.global_keyprefix))
        tag = _tag(stream, entry_id)
        message = self._checked(tag, queue, fields)
        if message is None:
            return
        if queue not in self.connection._callbacks:  # noqa: SLF001 - cancelled meanwhile
            self.hand_back([tag])
            return
        self._queue_cycle.rotate(queue)
        self.connection._deliver(message, queue)  # noqa: SLF001 - kombu's
        if queue in self._no_ack:
            self.qos.acknowledged.append(tag)
            if not self.fetches_soon():
                self.acknowledge()

    def _checked(self, tag: str, queue: str, fields: Any) -> Any:
        """Return a message as kombu takes it; None if it is not to be delivered (yet)."""
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
        try:
            message = check(fields.get(b"message", b""))
        except Malformed as error:
            self._answer(Dead(queue, error.job_id, str(error), {}), tag)
            return None
        due = _due(message)
        if due and due > time() + self._server_ahead + AHEAD + ROUND:
            self._put_off(tag, due, message)
            return None
        headers = message["headers"]
        if abs(self._server_ahead) > AHEAD:
            _shift_times(headers, self._server_ahead)
        # The name that RabbitMQ's quorum queues have for it.
        headers.pop("x-delivery-count", None)
        message["properties"]["delivery_tag"] = tag
        if b"deliveries" in fields:
            headers["redelivered"] = message["properties"]["delivery_info"]["redelivered"] = True
            headers["x-delivery-count"] = int(fields[b"deliveries"])
        return message

    def _put_off(self, tag: str, due: float, message: dict[str, Any]) -> None:
        """Keep what a stock producer sent ahead of its time, as our own producers do at once."""
        stream, _, entry_id = tag.rpartition("/")
        delayed = keys.delayed(keys.queue_of(stream))
        step = self.priority(self._get_message_priority(message, reverse=False))
        self._run(scripts.PUT_OFF, [delayed, stream], keys.GROUP, entry_id, due, step)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        """Return one message; raises Empty if there is none."""
        if self._is_listed(queue):
            return super()._get(queue)
        streams = self._streams(queue)
        self._mine.update(streams)
        for _ in range(2):
            try:
                names, argv = self._fetch(streams, 1)
                reply = scripts.FETCH(self._plain, names, *argv)
            except ResponseError as error:
                self._undo_acknowledging()
                if not _is_without_group(error):
                    raise
                self._create_groups(queue)
            else:
                self._acknowledging = []
                for stream, entries in reply:
                    for entry_id, fields in entries:
                        tag = _tag(_text(stream), _text(entry_id))
                        message = self._checked(tag, queue, fields)
                        if message is not None:
                            return message
                self._round(queue)
        raise Empty

    # Give back -----------------------------------------------------------------------

    def acknowledge(self) -> None:
        """Tell Redis now of what was acknowledged; what fails is kept for the next time."""
        while self.qos.acknowledged:
            names, argv = self._fetch([], 0)
            try:
                scripts.FETCH(self._plain, names, *argv)
            except ResponseError as error:
                self._undo_acknowledging()
                self._complain(error)
                break
            except BaseException:
                self._undo_acknowledging()
                raise
            self._acknowledging = []

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self._in_poll is connection:
            self._undo_acknowledging()
        super()._on_connection_disconnect(connection)  # type: ignore[misc]

    def _undo_acknowledging(self) -> None:
        self.qos.acknowledged.extendleft(self._acknowledging)
        self._acknowledging = []

    def hand_back(self, tags: Iterable[str], deliveries: int = 0) -> None:
        """Hand messages back, to be fetched before all others."""
        for stream, ids in by_stream(tags).items():
            pair = [self._returned(stream), stream]
            self._run(scripts.HAND_BACK, pair, keys.GROUP, deliveries, *ids)

    def hand_back_all(self, kept: Iterable[str]) -> None:
        """Hand back all that Redis knows this consumer to hold, but for what is kept."""
        kept_ids = by_stream(kept)
        for stream in self._mine:
            pair = [self._returned(stream), stream]
            argv = (keys.GROUP, self.consumer, *kept_ids.get(stream, ()))
            self._run(scripts.HAND_BACK_ALL, pair, *argv)

    def requeue(self, tag: str) -> None:
        """Hand one message back that counts as delivered, until that was too often."""
        message = self.qos.get(tag)
        deliveries = message.headers.get("x-delivery-count", 0) + 1
        if deliveries < self.max_deliveries:
            self.hand_back([tag], 1)
        else:
            sent = message._raw  # noqa: SLF001 - kombu's
            self._answer_too_often(tag, sent, "were lost with it or gave it back")

    def bury(self, tag: str, reason: str) -> bool:
        """Lay a message among the dead letters; False if somebody else has it by now."""
        stream, _, entry_id = tag.rpartition("/")
        dead = keys.dead(keys.queue_of(stream))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        argv = (keys.GROUP, entry_id, now, reason, MOST_DEAD)
        return bool(self._run(scripts.BURY, [dead, stream], *argv))

    def dead_letter(self, delivery_tag: str, reason: str) -> None:
        """Lay a message that was delivered among the dead letters, and acknowledge it."""
        self.qos.dead_letter(delivery_tag, reason)

    def _answer(self, dead: Dead, tag: str) -> None:
        # Answered first: a worker that dies between leaves a letter that is answered twice.
        logger.error("a message of %s is now a dead letter: %s", dead.queue, dead.reason)
        if self.on_dead_letter:
            self.on_dead_letter(dead)
        self.bury(tag, dead.reason)

    def _answer_too_often(self, tag: str, envelope: Mapping[str, Any], what: str) -> None:
        queue = keys.queue_of(tag.rpartition("/")[0]).removeprefix(self.global_keyprefix)
        reason = f"delivered {self.max_deliveries} times, and the workers {what}"
        job_id, _ = sender(envelope)
        self._answer(Dead(queue, job_id, reason, envelope), tag)

    # Once in a while -----------------------------------------------------------------

    def tend(self) -> None:
        """Do what has to be done once a second for each queue, by somebody."""
        now = monotonic()
        if now < max(self._next_round, self._pause_until):
            return
        self._next_round = now + ROUND
        for queue in self.active_queues:
            if not self._is_listed(queue):
                self._round(queue)

    def _round(self, queue: str) -> None:
        steps = [str(step) for step in self.priority_steps]
        names = [keys.delayed(queue), keys.returned(queue)]
        for step in self.priority_steps:
            names += [keys.stream(queue, step), self._q_for_pri(queue, step)]
        lease = int(1000 * self.lease) if monotonic() > self._takes_over_at else 0
        forgotten = int(1000 * max(FORGOTTEN, 4 * self.lease))
        argv = (keys.GROUP, AHEAD, lease, self.max_deliveries, forgotten, BATCH, *steps)
        reply = self._run(scripts.TEND, [*map(self._key, names)], *argv)
        if not reply:
            return
        now, *too_often = reply
        self._server_ahead = float(now) - time()
        for stream, entry_id, text in too_often:
            try:
                envelope = check(text)
            except Malformed as error:
                envelope = {"headers": {"id": error.job_id}}
            self._answer_too_often(_tag(_text(stream), _text(entry_id)), envelope, "died with it")

    def _run(self, script: scripts.Script, names: list[str], *argv: Any) -> Any:
        """Run a script and return its reply; None if the server refuses, for now."""
        try:
            return script(self._plain, names, *argv)
        except ResponseError as error:
            self._complain(error)
            return None

    def _complain(self, error: ResponseError) -> None:
        """Mend what can be mended; log what cannot, and leave the server alone for a second."""
        if isinstance(error, NoScriptError):
            self._plain.script_load(scripts.FETCH.source)
            return
        if _is_without_group(error):
            try:
                for queue in self.active_queues:
                    if not self._is_listed(queue):
                        self._create_groups(queue)
            except ResponseError as another:
                error = another
            else:
                return
        if isinstance(error, ReadOnlyError):  # a replica: its name may lead to another server soon
            self.pool.disconnect()
            self.client.connection_pool.disconnect()
        self._pause_until = monotonic() + ROUND
        complaint = str(error).partition(" script: ")[0]  # and which of them
        if monotonic() > self._complaints.get(complaint, 0):
            self._complaints[complaint] = monotonic() + COMPLAINT_INTERVAL
            logger.error("the server refuses, trying again every second: %s", complaint)

    def _create_groups(self, queue: str) -> None:
        for stream in self._streams(queue):
            try:
                self._plain.xgroup_create(stream, keys.GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    # Whole queues --------------------------------------------------------------------

    def _size(self, queue: str) -> int:
        """Return the number of messages that wait, those for later among them."""
        lists = (self._key(self._q_for_pri(queue, step)) for step in self.priority_steps)
        names = [self._key(keys.delayed(queue)), *self._streams(queue), *lists]
        return int(scripts.SIZE(self._plain, names, keys.GROUP))

    def _purge(self, queue: str) -> int:
        """Remove the messages that wait, and return how many there were."""
        names = [self._key(keys.delayed(queue)), *self._streams(queue)]
        gone = int(super()._purge(queue))
        while batch := scripts.PURGE(self._plain, names, keys.GROUP, 10 * BATCH):
            gone += batch
        return gone

    def queue_delete(self, queue: str, *args: Any, **options: Any) -> None:
        """Delete a queue with all it holds, dead letters excepted."""
        if options.get("if_empty") and self._size(queue):
            return
        super().queue_delete(queue, *args, **options)
        if not self._is_listed(queue):
            self._plain.unlink(self._key(keys.delayed(queue)), *self._streams(queue))

    def _has_queue(self, queue: str, **options: Any) -> bool:
        return bool(self._plain.exists(*self._streams(queue))) or super()._has_queue(
            queue, **options
        )

    def close(self) -> None:
        """Close, and hand back what is held, if Redis answers."""
        self._finish_fetch()
        if self._qos:  # before its connections are closed
            self._qos.restore_unacked_once()
        super().close()

    def _finish_fetch(self) -> None:
        """End the fetch under way; what it brought is handed back with all the rest."""
        connection, self._in_poll = self._in_poll, None
        if connection:
            self._undo_acknowledging()  # twice does no harm
            try:
                # Which number a connection has, a server tells that speaks the third protocol;
                # any other is waited for, a second at most.
                known = connection.handshake_metadata or {}
                number = known.get(b"id") or known.get("id")
                if number:
                    self._plain.client_unblock(number)
                connection.read_response()
            except (OSError, RedisError):
                connection.disconnect()


class Poller(redis.MultiChannelPoller):
    """Kombu's, which sends the fetches of all channels; and sees to what else is due."""

    _channels: set[Channel]

    def on_poll_start(self) -> None:
        """Send what is to be sent before the loop waits for replies."""
        super().on_poll_start()
        for channel in tuple(self._channels):
            if channel.active_queues:
                channel.acknowledge()
                channel.tend()

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Wait for a reply, but no longer than until the next round: no fetch may be under way."""
        return super().get(callback, ROUND if timeout is None else min(timeout, ROUND))


class Transport(redis.Transport):
    """The transport, for `broker_transport` or as what the scheme `redis` stands for."""

    Channel = Channel

    # A message that lacks a key is not a lost connection, as kombu has it.
    connection_errors = tuple(
        error for error in redis.Transport.connection_errors if error is not KeyError
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cycle = Poller()
        #: Queues that were declared here as not durable.
        self.transient_queues: set[str] = set()
        #: The thread whose event loop fetches, if there is one.
        self.loop_thread: int | None = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Fetch from a worker's event loop."""
        super().register_with_event_loop(connection, loop)
        self.loop_thread = threading.get_ident()

    def check_server(self, client: Any) -> float:
        """Return for how many seconds the server has been up.

        Raises ServerTooOld for one that cannot do what a consumer needs.
        """
        about = client.info("server")
        name = "valkey" if "valkey_version" in about else "redis"
        version = str(about[f"{name}_version"])
        if tuple(map(int, version.split(".")[:2])) < OLDEST[name]:
            oldest = (f"{each.title()} {major} or newer" for each, (major, _) in OLDEST.items())
            raise ServerTooOld(
                f"the server is {name.title()} {version}, and must be {', or '.join(oldest)}"
            )
        return float(about["uptime_in_seconds"])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _tag(stream: str, entry_id: Any) -> str:
    """Return the delivery tag of an entry: where it is, for when it is acknowledged."""
    return f"{stream}/{_text(entry_id)}"


def _is_without_group(error: ResponseError) -> bool:
    # The second: of a fetch that waits, when its stream is removed.
    return str(error).startswith(("NOGROUP", "UNBLOCKED")) or "NOGROUP" in str(error)


def _full(error: ResponseError) -> Exception:
    """Return the error of a queue that is full, or the server's own."""
    if not str(error).startswith("QUEUEFULL"):
        return error
    return QueueFull(f"the queue is full: {str(error).removeprefix('QUEUEFULL ')}")


def _moment(value: Any) -> datetime | None:
    """Return the moment that a header names, in UTC if it says nothing else; None for no time."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _due(message: Mapping[str, Any]) -> float:
    """Return when a message is due, in seconds since 1970; 0 for at once."""
    moment = _moment(message["headers"].get("eta")) if message.get("headers") else None
    return moment.timestamp() if moment else 0


def _shift_times(headers: dict[str, Any], ahead: float) -> None:
    """Turn a message's times into those of this machine's clock, which is wrong."""
    for name in ("eta", "expires"):
        moment = _moment(headers.get(name))
        if moment:
            headers[name] = (moment - timedelta(seconds=ahead)).isoformat()
