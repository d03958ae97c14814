"""Atomic operations on the queues of one Redis server.

Independent of kombu and Celery. Every function raises redis-py's errors.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from celery_streams import scripts
from celery_streams.errors import QueueFull
from celery_streams.protocol import error_text, text
from celery_streams.scripts import Script
from celery_streams.transport import entries, keys
from celery_streams.transport.entries import Ack, Entry

#: Messages that one command moves at most.
MOVE_BATCH = 1000
#: Approximate number of dead letters that a queue keeps; the oldest are removed first.
MAX_DEAD_LETTERS = 100_000
#: Seconds for which a `UniqueKey` is remembered.
UNIQUE_SECONDS = 30 * 86_400
#: Milliseconds that a queue with `x-expires` lasts at least, for maintenance renews it; at most.
MIN_LIFETIME, MAX_LIFETIME = 2000, 10**14


class UniqueKey(NamedTuple):
    """What identifies a message of beat, which is published once even if beat retries."""

    #: The name of the schedule's entry.
    entry: str
    #: The id of this submission.
    token: str
    #: Stored with the token, and returned to a retry.
    note: str


class Promoted(NamedTuple):
    """The outcome of a promotion."""

    #: The server's time, in seconds since 1970.
    now: float
    #: The time when the next delayed message is due; infinity without one.
    next_due: float
    #: Whether more messages may be due already.
    is_more: bool


class Lengths(NamedTuple):
    """The number of a queue's messages, by state. None where the broker cannot say."""

    #: Not yet delivered.
    waiting: int
    #: Delayed until their ETA.
    delayed: int | None = None
    #: Delivered and not acked.
    running: int | None = None
    #: Dead letters.
    dead: int | None = None


class Queues:
    """The queues of one server, as one program declares them.

    `client` returns a client that adds no prefix to keys; `steps` are the priority steps;
    `list_of` names kombu's list of a queue and a step; `expires` maps queues with `x-expires` to
    milliseconds.
    """

    def __init__(
        self,
        client: Callable[[], Any],
        steps: Sequence[int],
        list_of: Callable[[str, int], str],
        *,
        prefix: str = "",
        max_length: int = 1_000_000,
        expires: Mapping[str, int] | None = None,
    ) -> None:
        self._client = client
        self._steps = steps
        self._list_of = list_of
        self._prefix = prefix
        self._max_length = max_length
        self._expires = {} if expires is None else expires
        self._streams: dict[str, tuple[str, ...]] = {}

    def load(self, *loaded: Script) -> None:
        """Load scripts, for commands that name them by their digests alone."""
        for script in loaded:
            self._client().script_load(script.source)

    # Names -----------------------------------------------------------------------------

    def streams(self, queue: str) -> tuple[str, ...]:
        """Return the streams of a queue, the most urgent first."""
        known = self._streams.get(queue)
        if known is None:
            prefixed = self._prefix + queue
            pairs = (
                (keys.returned(prefixed, step), keys.stream(prefixed, step)) for step in self._steps
            )
            known = self._streams[queue] = tuple(chain.from_iterable(pairs))
        return known

    def returned(self, queue: str) -> tuple[str, ...]:
        """Return the streams of a queue's returned messages, the most urgent first."""
        return self.streams(queue)[::2]

    def queue_of(self, tag: str) -> str:
        """Return the queue of an entry."""
        stream, _ = keys.place(tag)
        return keys.queue_of(stream).removeprefix(self._prefix)

    def step_of(self, message: Mapping[str, Any]) -> int:
        """Return the priority step of a message."""
        return keys.priority_step(message, self._steps)

    def _delayed(self, queue: str) -> str:
        return self._prefix + keys.delayed(queue)

    def _former_returned(self, queue: str) -> str:
        return self._prefix + keys.former_returned(queue)

    def _lists(self, queue: str) -> list[str]:
        return [self._prefix + self._list_of(queue, step) for step in self._steps]

    # Publish ---------------------------------------------------------------------------

    def publication(
        self, queue: str, step: int, message: str, due: float = 0
    ) -> tuple[Script, str, tuple[Any, ...]]:
        """Return the script, key and arguments that publish a message; one with `due` is delayed.

        A queue takes `max_length` messages of each priority step, and as many delayed ones.
        """
        if due:
            return (
                scripts.PUBLISH_DELAYED,
                self._delayed(queue),
                (self._max_length, due, step, message),
            )
        key = self._prefix + keys.stream(queue, step)
        return scripts.PUBLISH, key, (self._max_length, message)

    def publish(self, queue: str, step: int, message: str, due: float = 0) -> None:
        """Publish a message; raises QueueFull."""
        script, key, argv = self.publication(queue, step, message, due)
        try:
            script(self._client(), [key], *argv)
        except ResponseError as error:
            raise refusal(error) from None

    def publish_once(self, queue: str, step: int, message: str, unique: UniqueKey) -> str:
        """Publish a message unless an earlier try did; return the note of that try, or this.

        Raises QueueFull.
        """
        names = [self._prefix + keys.stream(queue, step), self._prefix + keys.beat(unique.entry)]
        argv = (self._max_length, message, unique.token, unique.note, UNIQUE_SECONDS)
        try:
            return text(scripts.PUBLISH_ONCE(self._client(), names, *argv))
        except ResponseError as error:
            raise refusal(error) from None

    # Fetch and ack -----------------------------------------------------------------------

    def create(self, queue: str) -> None:
        """Create the queue's streams and consumer groups that do not exist."""
        for stream in self.streams(queue):
            try:
                self._client().xgroup_create(stream, keys.GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        self.renew(queue)

    @staticmethod
    def fetching(
        consumer: str, streams: Sequence[str], count: int, acks: Sequence[Ack]
    ) -> tuple[list[Any], list[Any]]:
        """Return the keys and arguments of scripts.FETCH."""
        acked = keys.by_stream(each.tag for each in acks)
        results = [each.result for each in acks if each.result]
        names = [*streams, *acked, *(result.key for result in results)]
        argv = [keys.GROUP, consumer, count, len(streams), len(acked)]
        for ids in acked.values():
            argv += (len(ids), *ids)
        for result in results:
            argv += result[1:]
        return names, argv

    def fetch(
        self, consumer: str, streams: Sequence[str], count: int, acks: Sequence[Ack] = ()
    ) -> list[Entry]:
        """Ack messages, storing their results, then fetch up to `count` others without waiting."""
        names, argv = self.fetching(consumer, streams, count, acks)
        return entries.fetched(scripts.FETCH(self._client(), names, *argv))

    # Held messages -----------------------------------------------------------------------

    def read(self, tag: str) -> Entry | None:
        """Return a message; None if it is acked."""
        stream, entry_id = keys.place(tag)
        for _, fields in self._client().xrange(stream, entry_id, entry_id):
            return entries.read(tag, [part for field in fields.items() for part in field])
        return None

    def release(
        self, tags: Iterable[str], deliveries: int = 0, *, is_permitted: bool = False
    ) -> None:
        """Release messages, adding `deliveries` to the count of each.

        With `is_permitted`, they run whatever the rate limits of their tasks.
        """
        for stream, ids in keys.by_stream(tags).items():
            pair = [keys.returned_from(stream), stream]
            scripts.RELEASE(self._client(), pair, keys.GROUP, deliveries, int(is_permitted), *ids)

    def release_all(self, consumer: str, streams: Iterable[str], kept: Iterable[str]) -> None:
        """Release all messages that a consumer holds, except those in `kept`."""
        kept_ids = keys.by_stream(kept)
        for stream in sorted(streams):  # `returned` first: its messages stay in front
            pair = [keys.returned_from(stream), stream]
            argv = (keys.GROUP, consumer, *kept_ids.get(stream, ()))
            scripts.RELEASE_ALL(self._client(), pair, *argv)

    def delay(self, tag: str, step: int, due: float) -> None:
        """Delay a held message until `due`, in seconds since 1970."""
        stream, entry_id = keys.place(tag)
        pair = [keys.delayed(keys.queue_of(stream)), stream]
        scripts.DELAY(self._client(), pair, keys.GROUP, entry_id, due, step)

    def dead_letter(self, tag: str, reason: str) -> bool:
        """Dead-letter a held message; return False if it is not held any more."""
        stream, entry_id = keys.place(tag)
        pair = [keys.dead(keys.queue_of(stream)), stream]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        argv = (keys.GROUP, entry_id, now, reason, MAX_DEAD_LETTERS)
        return bool(scripts.DEAD_LETTER(self._client(), pair, *argv))

    # Maintenance -------------------------------------------------------------------------

    def promote(self, queue: str) -> Promoted:
        """Move due messages, and those in kombu's lists, into the streams."""
        names = [self._delayed(queue)]
        for step, its_list in zip(self._steps, self._lists(queue), strict=True):
            names += [self._prefix + keys.stream(queue, step), its_list]
        now, next_due, moved = scripts.PROMOTE(self._client(), names, MOVE_BATCH, *self._steps)
        return Promoted(float(now), float(next_due or "inf"), moved >= MOVE_BATCH)

    def reclaim(
        self, consumer: str, queue: str, lease: float, max_deliveries: int, max_idle: float
    ) -> list[Entry]:
        """Release the messages of consumers that have not renewed them for `lease` seconds.

        Consumers that hold nothing and were idle for `max_idle` seconds are removed. Returns the
        messages that reached `max_deliveries`; `consumer` holds them now, to dead-letter them.
        """
        notes = keys.notes(self._prefix + queue)
        names = [*notes, self._former_returned(queue), *self.streams(queue)]
        limits = (int(1000 * lease), max_deliveries, int(1000 * max_idle))
        exhausted = scripts.RECLAIM(
            self._client(), names, keys.GROUP, consumer, *limits, MOVE_BATCH, *self._steps
        )
        return [
            Entry(keys.tag(text(stream), text(entry_id)), message, max_deliveries)
            for stream, entry_id, message in exhausted
        ]

    def expiry(self, queue: str) -> tuple[Script, list[str], tuple[int]] | None:
        """Return the script, keys and argument that renew a queue's `x-expires`; None without one.

        Dead letters do not expire.
        """
        if queue not in self._expires:
            return None
        names = [self._delayed(queue), *self.streams(queue), *self._lists(queue)]
        milliseconds = max(MIN_LIFETIME, min(self._expires[queue], MAX_LIFETIME))
        return scripts.EXPIRE, names, (milliseconds,)

    def renew(self, queue: str) -> None:
        """Restart the `x-expires` of a queue that has one."""
        if expiry := self.expiry(queue):
            script, names, argv = expiry
            script(self._client(), names, *argv)

    # Whole queues ------------------------------------------------------------------------

    def delayed(self, queue: str, limit: int) -> list[tuple[float, bytes]]:
        """Return the next `limit` delayed messages, each after the time when it is due."""
        found = self._client().zrange(self._delayed(queue), 0, limit - 1, withscores=True)
        return [(float(due), member.partition(b":")[2]) for member, due in found]

    def lengths(self, queue: str) -> Lengths:
        """Return the number of a queue's messages, by state."""
        names = [
            *(self._delayed(queue), self._prefix + keys.dead(queue)),
            *(self._former_returned(queue), *self.streams(queue), *self._lists(queue)),
        ]
        return Lengths(*map(int, scripts.LENGTHS(self._client(), names, keys.GROUP)))

    def foreign_keys(self, queue: str) -> list[str]:
        """Return those of the queue's keys that hold another type, each with that type."""
        expected = {
            **dict.fromkeys(self._lists(queue), "list"),
            **dict.fromkeys((*self.streams(queue), self._former_returned(queue)), "stream"),
            self._delayed(queue): "zset",
        }
        with self._client().pipeline(transaction=False) as pipeline:
            for key in expected:
                pipeline.type(key)
            kinds = [*map(text, pipeline.execute())]
        found = zip(expected.items(), kinds, strict=True)
        return [
            f"{key} holds a {kind}" for (key, wanted), kind in found if kind not in {"none", wanted}
        ]

    def size(self, queue: str) -> int:
        """Return the number of messages that are waiting or delayed."""
        lengths = self.lengths(queue)
        return lengths.waiting + (lengths.delayed or 0)

    def purge(self, queue: str) -> Iterator[list[bytes]]:
        """Remove the waiting and delayed messages; yield them in batches."""
        lists = self._lists(queue)
        former = self._former_returned(queue)
        names = [self._delayed(queue), former, *self.streams(queue), *lists]
        while messages := scripts.PURGE(self._client(), names, keys.GROUP, MOVE_BATCH, len(lists)):
            yield messages

    def delete(self, queue: str) -> None:
        """Delete a queue with all its messages except the dead letters."""
        former = self._former_returned(queue)
        self._client().unlink(self._delayed(queue), former, *self.streams(queue))

    def consumers(self, queue: str) -> int:
        """Return how many consumers a queue has."""
        stream = self.streams(queue)[-1]
        groups = self._client().xinfo_groups(stream)
        return sum(group["consumers"] for group in groups if text(group["name"]) == keys.GROUP)

    def exists(self, queue: str) -> bool:
        """Return True if a queue has a stream."""
        return bool(self._client().exists(*self.streams(queue)))


def refusal(error: Any) -> Any:
    """Return QueueFull for the scripts' error of a full queue, or any other error as it is."""
    said = error_text(error)
    if not said.startswith("QUEUEFULL"):
        return error
    return QueueFull(f"the queue is full: {said.removeprefix('QUEUEFULL ')}")


def is_wrong_type(error: ResponseError) -> bool:
    """Return True if a key holds a type that the command does not work on."""
    return "WRONGTYPE" in str(error)


def is_without_group(error: Exception) -> bool:
    """Return True if a stream or its consumer group does not exist (any more)."""
    # UNBLOCKED ends a waiting fetch whose stream is deleted.
    return "NOGROUP" in str(error) or str(error).startswith("UNBLOCKED")
