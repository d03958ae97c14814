"""What can be done with a queue in Redis, each in one step, whatever else goes on.

Knows neither kombu nor Celery. Every function raises redis-py's errors.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from celery_streams import scripts
from celery_streams.errors import QueueFull
from celery_streams.transport import keys

#: Most messages that one command moves.
BATCH = 1000
#: Digits of a number of deliveries; what has more is not one of ours.
MAX_DIGITS = 10
#: Dead letters that are kept, about; the oldest go first.
MOST_DEAD = 100_000
#: Seconds for which it is known what an entry of beat's schedule submitted last.
ONCE_SECONDS = 30 * 86_400


class Entry(NamedTuple):
    """A message as it is stored."""

    tag: str
    message: bytes
    #: How often it was delivered before; None if never.
    deliveries: int | None


class Result(NamedTuple):
    """What a job gave, as it is stored."""

    key: bytes
    payload: bytes
    #: How long it is kept; 0 for ever.
    seconds: int
    #: Where its sender listens; empty for nowhere.
    channel: bytes


class Ack(NamedTuple):
    """A message that is acknowledged, and the result that is to be stored with that, if any."""

    tag: str
    result: Result | None = None


class UniqueKey(NamedTuple):
    """What a message is known by that is published once, however often its sender tries."""

    #: The entry of beat's schedule whose message it is.
    entry: str
    #: The message's own among those of the entry.
    token: str
    #: What is noted with it.
    note: str


class Promoted(NamedTuple):
    """What a round of promotion found."""

    #: The server's time, in seconds since 1970.
    now: float
    #: When the next delayed message is due, in the same; infinity if there is none.
    next_due: float
    #: Whether there may be more to move at once.
    is_more: bool


class Lengths(NamedTuple):
    """How many messages a queue has, by what becomes of them next."""

    #: For the next worker that is free.
    waiting: int
    #: For later: their ETA lies ahead. None, here and below, where the broker does not say.
    delayed: int | None = None
    #: Given to a worker, and not acknowledged: they run, or are about to.
    running: int | None = None
    #: Dead letters.
    dead: int | None = None


class Queues:
    """The queues of one server."""

    def __init__(
        self,
        client: Callable[[], Any],
        steps: Sequence[int],
        list_of: Callable[[str, int], str],
        prefix: str = "",
    ) -> None:
        self._client = client
        self._steps = steps
        self._list_of = list_of
        self._prefix = prefix
        #: What `streams` returns of each queue.
        self._streams: dict[str, tuple[str, ...]] = {}

    # Names -----------------------------------------------------------------------------

    def streams(self, queue: str) -> tuple[str, ...]:
        """Return the streams of a queue in the order that they are fetched from."""
        known = self._streams.get(queue)
        if known is None:
            prefixed = self._prefix + queue
            pairs = (
                (keys.returned(prefixed, step), keys.stream(prefixed, step)) for step in self._steps
            )
            known = self._streams[queue] = tuple(chain.from_iterable(pairs))
        return known

    def queue_of(self, tag: str) -> str:
        """Return the queue of an entry."""
        stream, _ = keys.place(tag)
        return keys.queue_of(stream).removeprefix(self._prefix)

    def _delayed(self, queue: str) -> str:
        return self._prefix + keys.delayed(queue)

    def _former_returned(self, queue: str) -> str:
        return self._prefix + keys.former_returned(queue)

    def _lists(self, queue: str) -> list[str]:
        return [self._prefix + self._list_of(queue, step) for step in self._steps]

    # Publish ---------------------------------------------------------------------------

    def publication(
        self, queue: str, step: int, most: int, message: str, due: float = 0
    ) -> tuple[scripts.Script, str, tuple[Any, ...]]:
        """Return the script, its key and arguments that publish a message, at once or for later.

        A queue takes `most` messages of each priority step, and as many for later.
        """
        if due:
            return scripts.PUBLISH_DELAYED, self._delayed(queue), (most, due, step, message)
        return scripts.PUBLISH, self._prefix + keys.stream(queue, step), (most, message)

    def publish(self, queue: str, step: int, most: int, message: str, due: float = 0) -> None:
        """Publish a message; raises QueueFull for a queue that is."""
        script, key, argv = self.publication(queue, step, most, message, due)
        try:
            script(self._client(), [key], *argv)
        except ResponseError as error:
            raise refusal(error) from None

    def publish_once(
        self, queue: str, step: int, most: int, message: str, unique: UniqueKey
    ) -> str:
        """Publish a message unless it was; return what was noted then. Raises QueueFull."""
        names = [self._prefix + keys.stream(queue, step), self._prefix + keys.beat(unique.entry)]
        argv = (most, message, unique.token, unique.note, ONCE_SECONDS)
        try:
            return _text(scripts.PUBLISH_ONCE(self._client(), names, *argv))
        except ResponseError as error:
            raise refusal(error) from None

    # Fetch and acknowledge ---------------------------------------------------------------

    def create(self, queue: str) -> None:
        """Make sure that a queue's streams and their groups are there."""
        for stream in self.streams(queue):
            try:
                self._client().xgroup_create(stream, keys.GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    @staticmethod
    def fetching(
        consumer: str, streams: Sequence[str], count: int, ended: Sequence[Ack]
    ) -> tuple[list[Any], list[Any]]:
        """Return the keys and arguments of scripts.FETCH."""
        done = keys.by_stream(each.tag for each in ended)
        results = [each.result for each in ended if each.result]
        names = [*streams, *done, *(result.key for result in results)]
        argv = [keys.GROUP, consumer, count, len(streams), len(done)]
        for ids in done.values():
            argv += (len(ids), *ids)
        for result in results:
            argv += result[1:]
        return names, argv

    def fetch(
        self, consumer: str, streams: Sequence[str], count: int, ended: Sequence[Ack] = ()
    ) -> list[Entry]:
        """Acknowledge messages, with their results, then return up to so many others, if any."""
        names, argv = self.fetching(consumer, streams, count, ended)
        return entries(scripts.FETCH(self._client(), names, *argv))

    # Give back ---------------------------------------------------------------------------

    def release(self, tags: Iterable[str], deliveries: int = 0) -> None:
        """Release messages, to be fetched first of their priority; add to their deliveries."""
        for stream, ids in keys.by_stream(tags).items():
            pair = [keys.returned_from(stream), stream]
            scripts.RELEASE(self._client(), pair, keys.GROUP, deliveries, *ids)

    def release_all(self, consumer: str, streams: Iterable[str], kept: Iterable[str]) -> None:
        """Hand back all that a consumer holds, but for what is kept."""
        kept_ids = keys.by_stream(kept)
        for stream in sorted(streams):  # what was returned before stays in front
            pair = [keys.returned_from(stream), stream]
            argv = (keys.GROUP, consumer, *kept_ids.get(stream, ()))
            scripts.RELEASE_ALL(self._client(), pair, *argv)

    def delay(self, tag: str, step: int, due: float) -> None:
        """Keep a message that was delivered until its time, in seconds since 1970."""
        stream, entry_id = keys.place(tag)
        pair = [keys.delayed(keys.queue_of(stream)), stream]
        scripts.DELAY(self._client(), pair, keys.GROUP, entry_id, due, step)

    def bury(self, tag: str, reason: str) -> bool:
        """Lay a message among the dead letters; False if somebody else has it by now."""
        stream, entry_id = keys.place(tag)
        pair = [keys.dead(keys.queue_of(stream)), stream]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return bool(
            scripts.DEAD_LETTER(self._client(), pair, keys.GROUP, entry_id, now, reason, MOST_DEAD)
        )

    def promote(self, queue: str) -> Promoted:
        """Move what is due, and what was pushed to kombu's lists, into the streams."""
        names = [self._delayed(queue)]
        for step, its_list in zip(self._steps, self._lists(queue), strict=True):
            names += [self._prefix + keys.stream(queue, step), its_list]
        now, next_due, moved = scripts.PROMOTE(self._client(), names, BATCH, *self._steps)
        return Promoted(float(now), float(next_due or "inf"), moved >= BATCH)

    def reclaim(
        self, consumer: str, queue: str, lease: float, most_deliveries: int, forgotten: float
    ) -> list[Entry]:
        """Release what consumers hold whose lease of so many seconds is over.

        Consumers that hold nothing, and gave no sign of life for `forgotten` seconds, are removed.
        Returns what was delivered too often, which this consumer holds, for `bury`.
        """
        names = [self._former_returned(queue), *self.streams(queue)]
        times = (int(1000 * lease), most_deliveries, int(1000 * forgotten))
        too_often = scripts.RECLAIM(
            self._client(), names, keys.GROUP, consumer, *times, BATCH, *self._steps
        )
        return [
            Entry(keys.tag(_text(stream), _text(entry_id)), message, most_deliveries)
            for stream, entry_id, message in too_often
        ]

    def delayed(self, queue: str, most: int) -> list[tuple[float, bytes]]:
        """Return up to so many messages that wait for their time, and it, the next ones first."""
        waiting = self._client().zrange(self._delayed(queue), 0, most - 1, withscores=True)
        return [(float(due), member.partition(b":")[2]) for member, due in waiting]

    # Whole queues ------------------------------------------------------------------------

    def lengths(self, queue: str) -> Lengths:
        """Return how many messages of a queue wait, are for later, are held, and are dead."""
        names = [
            *(self._delayed(queue), self._prefix + keys.dead(queue)),
            *(self._former_returned(queue), *self.streams(queue), *self._lists(queue)),
        ]
        return Lengths(*map(int, scripts.LENGTHS(self._client(), names, keys.GROUP)))

    def foreign_keys(self, queue: str) -> list[str]:
        """Return the keys of a queue's names that hold something else, and what."""
        expected = {
            **dict.fromkeys(self._lists(queue), "list"),
            **dict.fromkeys((*self.streams(queue), self._former_returned(queue)), "stream"),
            self._delayed(queue): "zset",
        }
        with self._client().pipeline(transaction=False) as pipeline:
            for key in expected:
                pipeline.type(key)
            kinds = [*map(_text, pipeline.execute())]
        found = zip(expected.items(), kinds, strict=True)
        return [
            f"{key} holds a {kind}" for (key, wanted), kind in found if kind not in {"none", wanted}
        ]

    def size(self, queue: str) -> int:
        """Return the number of messages that wait, those for later among them."""
        lengths = self.lengths(queue)
        return lengths.waiting + (lengths.delayed or 0)

    def purge(self, queue: str) -> Iterator[list[bytes]]:
        """Remove the messages that wait, in streams, in lists or for later; yield them."""
        lists = self._lists(queue)
        former = self._former_returned(queue)
        names = [self._delayed(queue), former, *self.streams(queue), *lists]
        while messages := scripts.PURGE(self._client(), names, keys.GROUP, BATCH, len(lists)):
            yield messages

    def expiry(self, queue: str, milliseconds: int) -> tuple[scripts.Script, list[str], tuple[int]]:
        """Return the script, its keys and argument that have a queue expire, if nobody uses it.

        Its dead letters stay.
        """
        names = [self._delayed(queue), *self.streams(queue), *self._lists(queue)]
        return scripts.EXPIRE, names, (milliseconds,)

    def expire(self, queue: str, milliseconds: int) -> None:
        """Have a queue expire after so long without any use."""
        script, names, argv = self.expiry(queue, milliseconds)
        script(self._client(), names, *argv)

    def delete(self, queue: str) -> None:
        """Delete a queue's streams, but for the dead letters."""
        former = self._former_returned(queue)
        self._client().unlink(self._delayed(queue), former, *self.streams(queue))

    def exists(self, queue: str) -> bool:
        """Tell whether a queue has a stream."""
        return bool(self._client().exists(*self.streams(queue)))


def entries(reply: Any) -> list[Entry]:
    """Return what XREADGROUP replies, in either version of the protocol."""
    found = []
    for stream, fetched in reply.items() if isinstance(reply, dict) else reply or ():
        name = _text(stream)
        for entry_id, fields in fetched:
            message, deliveries = _read(fields)
            found.append(Entry(keys.tag(name, _text(entry_id)), message, deliveries))
    return found


def _read(fields: list[bytes]) -> tuple[bytes, int | None]:
    """Return an entry's message, and how often it was delivered."""
    if len(fields) == 2 and fields[0] == b"message":  # noqa: PLR2004 - as nearly all
        return fields[1], None
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    deliveries = named.get(b"deliveries")
    if deliveries is not None:
        is_count = deliveries.isdigit() and len(deliveries) < MAX_DIGITS
        return named.get(b"message", b""), int(deliveries) if is_count else 0
    return named.get(b"message", b""), None


def refusal(error: Any) -> Any:
    """Return QueueFull for the error of a queue that is full, or else the error itself."""
    if not str(error).startswith("QUEUEFULL"):
        return error
    return QueueFull(f"the queue is full: {str(error).removeprefix('QUEUEFULL ')}")


def is_wrong_type(error: ResponseError) -> bool:
    """Return True if a key holds something else than its command is for."""
    return "WRONGTYPE" in str(error)


def is_without_group(error: Exception) -> bool:
    """Tell whether a stream, or its group, is not there (any more)."""
    # The second: of a fetch that waits, when its stream is removed.
    return "NOGROUP" in str(error) or str(error).startswith("UNBLOCKED")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
