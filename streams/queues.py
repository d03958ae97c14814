"""What can be done with a queue in Redis, each in one step, whatever else goes on.

Knows neither kombu nor Celery. Every function raises redis-py's errors.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from streams import keys, scripts
from streams.errors import QueueFull

#: Most messages that one command moves.
BATCH = 1000
#: Digits of a number of deliveries; what has more is not one of ours.
MAX_DIGITS = 10
#: Dead letters that are kept, about; the oldest go first.
MOST_DEAD = 100_000


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


class Ended(NamedTuple):
    """A message that is acknowledged, and the result that is to be stored with that, if any."""

    tag: str
    result: Result | None = None


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
            names = [keys.returned(queue), *(keys.stream(queue, step) for step in self._steps)]
            known = self._streams[queue] = tuple(self._prefix + name for name in names)
        return known

    def queue_of(self, tag: str) -> str:
        """Return the queue of an entry."""
        stream, _ = keys.place(tag)
        return keys.queue_of(stream).removeprefix(self._prefix)

    def _delayed(self, queue: str) -> str:
        return self._prefix + keys.delayed(queue)

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
            return scripts.DELAY, self._delayed(queue), (most, due, step, message)
        return scripts.PUBLISH, self._prefix + keys.stream(queue, step), (most, message)

    def publish(self, queue: str, step: int, most: int, message: str, due: float = 0) -> None:
        """Publish a message; raises QueueFull for a queue that is."""
        script, key, argv = self.publication(queue, step, most, message, due)
        try:
            script(self._client(), [key], *argv)
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
        consumer: str, streams: Sequence[str], count: int, ended: Sequence[Ended]
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
        self, consumer: str, streams: Sequence[str], count: int, ended: Sequence[Ended] = ()
    ) -> list[Entry]:
        """Acknowledge messages, with their results, then return up to so many others, if any."""
        names, argv = self.fetching(consumer, streams, count, ended)
        return entries(scripts.FETCH(self._client(), names, *argv))

    # Give back ---------------------------------------------------------------------------

    def hand_back(self, tags: Iterable[str], deliveries: int = 0) -> None:
        """Hand messages back, to be fetched before all others, with so many more deliveries."""
        for stream, ids in keys.by_stream(tags).items():
            pair = [keys.returned(keys.queue_of(stream)), stream]
            scripts.HAND_BACK(self._client(), pair, keys.GROUP, deliveries, *ids)

    def hand_back_all(self, consumer: str, streams: Iterable[str], kept: Iterable[str]) -> None:
        """Hand back all that a consumer holds, but for what is kept."""
        kept_ids = keys.by_stream(kept)
        for stream in streams:
            pair = [keys.returned(keys.queue_of(stream)), stream]
            argv = (keys.GROUP, consumer, *kept_ids.get(stream, ()))
            scripts.HAND_BACK_ALL(self._client(), pair, *argv)

    def put_off(self, tag: str, step: int, due: float) -> None:
        """Keep a message that was delivered until its time, in seconds since 1970."""
        stream, entry_id = keys.place(tag)
        pair = [keys.delayed(keys.queue_of(stream)), stream]
        scripts.PUT_OFF(self._client(), pair, keys.GROUP, entry_id, due, step)

    def bury(self, tag: str, reason: str) -> bool:
        """Lay a message among the dead letters; False if somebody else has it by now."""
        stream, entry_id = keys.place(tag)
        pair = [keys.dead(keys.queue_of(stream)), stream]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return bool(
            scripts.BURY(self._client(), pair, keys.GROUP, entry_id, now, reason, MOST_DEAD)
        )

    def tend(
        self,
        consumer: str,
        queue: str,
        ahead: float,
        lease: float,
        most_deliveries: int,
        forgotten: float,
    ) -> tuple[float, list[Entry]]:
        """Do what has to be done once in a while for a queue, by somebody.

        What is due within `ahead` seconds, and what kombu's own transport pushed to its lists, is
        moved into the streams. What a consumer holds whose lease of so many seconds is over is
        handed back; 0 is for none. Consumers that hold nothing, and gave no sign of life for
        `forgotten` seconds, are removed. Returns the server's time, in seconds since 1970, and
        what was delivered too often, which this consumer holds, for `bury`.
        """
        names = [self._delayed(queue), self._prefix + keys.returned(queue)]
        for stream, its_list in zip(self.streams(queue)[1:], self._lists(queue), strict=True):
            names += [stream, its_list]
        times = (ahead, int(1000 * lease), most_deliveries, int(1000 * forgotten))
        steps = (str(step) for step in self._steps)
        now, *too_often = scripts.TEND(
            self._client(), names, keys.GROUP, *times, BATCH, consumer, *steps
        )
        return float(now), [
            Entry(keys.tag(_text(stream), _text(entry_id)), message, most_deliveries)
            for stream, entry_id, message in too_often
        ]

    def later(self, queue: str, most: int) -> list[tuple[float, bytes]]:
        """Return up to so many messages that wait for their time, and it, the next ones first."""
        waiting = self._client().zrange(self._delayed(queue), 0, most - 1, withscores=True)
        return [(float(due), member.partition(b":")[2]) for member, due in waiting]

    # Whole queues ------------------------------------------------------------------------

    def size(self, queue: str) -> int:
        """Return the number of messages that wait, those for later among them."""
        names = [self._delayed(queue), *self.streams(queue), *self._lists(queue)]
        return int(scripts.SIZE(self._client(), names, keys.GROUP))

    def purge(self, queue: str) -> Iterator[list[bytes]]:
        """Remove the messages that wait, in streams, in lists or for later; yield them."""
        lists = self._lists(queue)
        names = [self._delayed(queue), *self.streams(queue), *lists]
        while messages := scripts.PURGE(self._client(), names, keys.GROUP, BATCH, len(lists)):
            yield messages

    def delete(self, queue: str) -> None:
        """Delete a queue's streams, but for the dead letters."""
        self._client().unlink(self._delayed(queue), *self.streams(queue))

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


def is_without_group(error: Exception) -> bool:
    """Tell whether a stream, or its group, is not there (any more)."""
    # The second: of a fetch that waits, when its stream is removed.
    return "NOGROUP" in str(error) or str(error).startswith("UNBLOCKED")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
