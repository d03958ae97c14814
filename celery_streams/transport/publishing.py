"""The publishing half of kombu's channel: durable queues are streams, all others kombu's lists."""

from collections.abc import Iterable, Iterator
from functools import partial
from time import time
from typing import Any

from kombu.exceptions import BatchPublishError  # type: ignore[attr-defined]
from kombu.transport import redis
from kombu.utils.json import dumps
from redis import ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from celery_streams import scripts
from celery_streams.errors import MessageTooLarge
from celery_streams.retries import retry_while_refused
from celery_streams.transport import eta, purge, queues, revocation
from celery_streams.transport.lists import ListChannel
from celery_streams.transport.queues import Queues, UniqueKey
from celery_streams.transport.refusals import Refusals
from celery_streams.transport.validation import MAX_BYTES, check_parsed, too_large

#: A message that is due within this many seconds is published to its stream: its consumer delays
#: it, and promotes it on time; another consumer's next round could be late.
MIN_DELAY = 2.0
#: AMQP's number for a message that need not survive the server.
TRANSIENT = 1


class PublishBatch(redis.PublishBatch):  # type: ignore[name-defined,misc]  # not in the stubs
    """Kombu's batch of messages, which are published in one write."""

    def flush(self) -> None:
        """Publish what was collected. Raises QueueFull; earlier messages may have been accepted."""
        try:
            super().flush()
        except BatchPublishError as error:
            full = queues.refusal(error.__cause__)
            if full is error.__cause__:
                raise
            raise full from None


class PublishingChannel(ListChannel):
    """Declares queues, publishes to them, and counts, purges or deletes their messages."""

    #: Messages of one priority step that a queue takes before it refuses more.
    queue_max_length = 1_000_000
    #: Bytes of a message, and of its body when it is decompressed.
    max_message_bytes = MAX_BYTES
    #: The app whose callers are told of purged jobs; None for Celery's current one.
    app: Any = None

    from_transport_options = (
        *ListChannel.from_transport_options,
        *("queue_max_length", "max_message_bytes"),
    )

    # What the type stubs leave out of kombu's class.
    active_queues: Any
    client: Any
    connection: Any
    global_keyprefix: str
    priority_steps: list[int]
    _expires: dict[str, int]
    _q_for_pri: Any
    _connparams: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        self._commands: Any = None
        #: Milliseconds that the messages of a queue may wait, where it is declared with a limit.
        self.message_lifetimes: dict[str, int] = {}
        super().__init__(*args, **options)
        #: How its server is reached.
        self.connection_parameters: dict[str, Any] = self._connparams()
        self.queues = Queues(
            lambda: self.plain_client,
            self.priority_steps,
            self._q_for_pri,
            prefix=self.global_keyprefix,
            max_length=self.queue_max_length,
            expires=self._expires,
        )
        self.refusals = Refusals(self.queues, self.durable_queues, self._reconnect)

    def is_list(self, queue: str) -> bool:
        """Return True if a queue is not durable, and thus a list of kombu's."""
        if self.connection is None:
            raise RedisConnectionError("the channel is closed")
        return queue in self.connection.transient_queues

    @property
    def has_lists(self) -> bool:
        """Whether the channel consumes from a queue that is a list."""
        return any(map(self.is_list, self.active_queues))

    def durable_queues(self) -> Iterator[str]:
        """Yield the queues that the channel consumes from and that are streams."""
        return (queue for queue in self.active_queues if not self.is_list(queue))

    # Clients ---------------------------------------------------------------------------

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT002 - kombu's
        """Return one client for all commands: kombu creates one for each."""
        if asynchronous:  # kombu's word for blocking fetches, each on a client of its own
            return super()._create_client(asynchronous)  # type: ignore[misc]  # not in the stubs
        if self._commands is None or self._commands.connection_pool is not self.pool:
            self._commands = super()._create_client()  # type: ignore[misc]  # not in the stubs
        return self._commands

    def _new_client(self) -> Any:
        return Redis(connection_pool=ConnectionPool(**self.connection_parameters))

    @property
    def plain_client(self) -> Any:
        """A client that adds no prefix to keys: our scripts take whole ones."""
        return Redis(connection_pool=self.pool) if self.global_keyprefix else self._create_client()

    def _reconnect(self) -> None:
        self.pool.disconnect()
        self.client.connection_pool.disconnect()

    # Publish ---------------------------------------------------------------------------

    def _new_queue(self, queue: str, auto_delete: bool = False, **options: Any) -> None:  # noqa: FBT002 - kombu's
        super()._new_queue(queue, auto_delete=auto_delete, **options)
        is_transient = auto_delete or options.get("exclusive") or not options.get("durable", True)
        known = self.connection.transient_queues
        (known.add if is_transient else known.discard)(queue)
        lifetime = eta.milliseconds((options.get("arguments") or {}).get("x-message-ttl"))
        self.message_lifetimes.pop(queue, None)
        if lifetime is not None:
            self.message_lifetimes[queue] = lifetime

    def _put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        """Publish a message; raises Malformed, MessageTooLarge, QueueFull, or redis-py's errors.

        A transient message, or one of a queue that is not durable, goes to kombu's list, where
        stock programs wait for it. From the list of a durable queue, maintenance promotes it.
        """
        text = self._text_of(message)
        if self.is_list(queue) or message["properties"].get("delivery_mode") == TRANSIENT:
            super()._put(queue, message, **options)
            return
        due = eta.due(message)
        due = due if due > time() + MIN_DELAY else 0
        publication = (queue, self.queues.step_of(message), text, due)
        batch = options.get("_publish_batch")
        if batch is None:
            retry_while_refused(partial(self.queues.publish, *publication))
            self.refusals.attempt(self.queues.renew, queue)
            return
        script, key, argv = self.queues.publication(*publication)
        self._add_to(batch, script, [key], argv)
        if expiry := self.queues.expiry(queue):
            self._add_to(batch, *expiry)

    def _add_to(self, batch: Any, script: scripts.Script, names: list[str], argv: Any) -> None:
        first, *rest = names
        first = first.removeprefix(self.global_keyprefix)  # kombu's pipeline adds it again
        batch.add("evalsha", script.digest, len(names), first, *rest, *argv)

    def publish_once(self, queue: str, message: dict[str, Any], unique: UniqueKey) -> str:
        """Publish a message unless an earlier try did; return that try's note.

        Raises what `_put` raises. Delayed messages, and those of queues that are not durable, are
        published by every try.
        """
        text = self._text_of(message)
        if not queue or self.is_list(queue) or eta.due(message):
            where = message["properties"]["delivery_info"]
            self.basic_publish(message, where["exchange"], where["routing_key"])
            return unique.note
        return self.queues.publish_once(queue, self.queues.step_of(message), text, unique)

    def _text_of(self, message: dict[str, Any]) -> str:
        """Return a message as it is stored; raises Malformed or MessageTooLarge."""
        check_parsed(message)
        text: str = dumps(message)
        if len(text) > self.max_message_bytes:
            raise MessageTooLarge(too_large(len(text), self.max_message_bytes))
        return text

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """Return a batch, whose commands name the scripts by their digests."""
        self.queues.load(scripts.PUBLISH, scripts.PUBLISH_DELAYED, scripts.EXPIRE)
        return PublishBatch(self, max_size)

    # Whole queues ----------------------------------------------------------------------

    def _size(self, queue: str) -> int:
        return self.queues.size(queue)

    def _purge(self, queue: str) -> int:
        if self.is_list(queue):
            return int(super()._purge(queue))
        count = 0
        for messages in self.queues.purge(queue):
            count += len(messages)
            purge.notify_callers(messages, self.app)
        return count

    def queue_delete(self, queue: str, *args: Any, **options: Any) -> None:
        """Delete a queue with all its messages except the dead letters."""
        if options.get("if_empty") and self._size(queue):
            return
        super().queue_delete(queue, *args, **options)
        if not self.is_list(queue):
            self.queues.delete(queue)

    def _has_queue(self, queue: str, **options: Any) -> bool:
        return self.queues.exists(queue) or super()._has_queue(queue, **options)

    def record_revoked(self, ids: Iterable[str]) -> list[str]:
        """Keep the ids of revoked jobs; return those that were not kept yet."""
        return revocation.record(self.plain_client, ids, self.global_keyprefix)

    def maybe_refresh_binding_expiry(self) -> None:
        """Renew the bindings of queues that expire; a refusal is logged."""
        try:
            super().maybe_refresh_binding_expiry()  # type: ignore[misc]  # not in the stubs
        except ResponseError as error:
            self.refusals.log(error)
