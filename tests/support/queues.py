"""The operations on queues in memory, for tests of their callers without a server."""

from collections.abc import Iterable, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any

from redis.exceptions import ResponseError

from celery_streams.transport import keys
from celery_streams.transport.deliveries import Deliveries
from celery_streams.transport.entries import Ack, Entry, Result
from celery_streams.transport.maintenance import Maintenance
from celery_streams.transport.queues import Promoted, Queues
from celery_streams.transport.refusals import Refusals

CONSUMER = "host:1:a-1"


class FakeQueues(Queues):
    """One consumer's view of queues, each with one priority step.

    `refuse` is raised by the next command, once.
    """

    def __init__(self) -> None:
        super().__init__(lambda: None, [0], lambda queue, _: queue)
        self.now = 1_700_000_000.0
        self.waiting: dict[str, list[Entry]] = {}
        self.pending: dict[str, Entry] = {}
        self.delayed_until: list[tuple[float, Entry]] = []
        self.dead: list[tuple[str, str]] = []
        self.results: list[Result] = []
        self.exhausted: list[Entry] = []
        self.created: list[str] = []
        self.loaded: list[Any] = []
        self.calls: list[str] = []
        self.refuse: ResponseError | None = None
        self._ids = count(1)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        error, self.refuse = self.refuse, None
        if error:
            raise error

    def put(self, queue: str, message: bytes, deliveries: int | None = None) -> str:
        """Add a message, and return its tag."""
        kind = keys.stream if deliveries is None else keys.returned
        tag = keys.tag(kind(queue, 0), f"{int(1000 * self.now)}-{next(self._ids)}")
        self.waiting.setdefault(queue, []).append(Entry(tag, message, deliveries))
        return tag

    def load(self, *loaded: Any) -> None:
        """Note the scripts."""
        self.loaded += loaded

    def create(self, queue: str) -> None:
        """Note the queue."""
        self._call("create")
        self.created.append(queue)

    def fetch(
        self, consumer: str, streams: Sequence[str], count: int, acks: Sequence[Ack] = ()
    ) -> list[Entry]:
        """Ack, then give the consumer what waits."""
        self._call("fetch")
        for ack in acks:
            self.pending.pop(ack.tag, None)
            if ack.result:
                self.results.append(ack.result)
        fetched: list[Entry] = []
        for queue in dict.fromkeys(map(keys.queue_of, streams)):
            waiting = self.waiting.get(queue, [])
            taken, self.waiting[queue] = waiting[:count], waiting[count:]
            fetched += taken
        self.pending |= {entry.tag: entry for entry in fetched}
        return fetched

    def release(
        self, tags: Iterable[str], deliveries: int = 0, *, is_permitted: bool = False
    ) -> None:
        """Put messages back."""
        self._call("release")
        for entry in [self.pending.pop(tag) for tag in [*tags] if tag in self.pending]:
            self.put(self.queue_of(entry.tag), entry.message, (entry.deliveries or 0) + deliveries)

    def release_all(self, consumer: str, streams: Iterable[str], kept: Iterable[str]) -> None:
        """Put all messages back but those that are kept."""
        kept = {*kept}
        self.release([tag for tag in self.pending if tag not in kept])

    def delay(self, tag: str, step: int, due: float) -> None:
        """Keep a message until it is due."""
        self._call("delay")
        self.delayed_until.append((due, self.pending.pop(tag)))

    def dead_letter(self, tag: str, reason: str) -> bool:
        """Keep the reason."""
        self._call("dead_letter")
        self.dead.append((tag, reason))
        return self.pending.pop(tag, None) is not None

    def promote(self, queue: str) -> Promoted:
        """Put due messages back."""
        self._call("promote")
        due = [each for each in self.delayed_until if each[0] <= self.now]
        self.delayed_until = [each for each in self.delayed_until if each[0] > self.now]
        for _, entry in due:
            self.put(queue, entry.message)
        left = min((moment for moment, _ in self.delayed_until), default=float("inf"))
        return Promoted(self.now, left, is_more=False)

    def reclaim(
        self, consumer: str, queue: str, lease: float, max_deliveries: int, max_idle: float
    ) -> list[Entry]:
        """Return the messages that were delivered too often."""
        self._call("reclaim" if lease else "look")
        exhausted, self.exhausted = self.exhausted, []
        self.pending |= {entry.tag: entry for entry in exhausted}
        return exhausted

    def foreign_keys(self, queue: str) -> list[str]:
        """Return none."""
        return []


class FakeClient:
    """The client of a lease, which lasts longer than a test."""

    connection_pool = SimpleNamespace(disconnect=lambda **_: None)


class Consuming:
    """The objects of a consumer, on queues in memory."""

    def __init__(self, *consumed: str, max_deliveries: int = 3, flushes_soon: bool = True) -> None:
        self.queues = FakeQueues()
        self.reconnects = 0
        self.flushes_soon = flushes_soon
        self.refusals = Refusals(self.queues, lambda: consumed, self._reconnect)
        self.deliveries = Deliveries(
            CONSUMER,
            self.queues,
            self.refusals,
            FakeClient,
            lambda: self.flushes_soon,
            lease=1000,  # its thread sleeps for a quarter of that
            max_deliveries=max_deliveries,
        )
        self.maintenance = Maintenance(
            self.queues,
            self.deliveries,
            self.refusals,
            lambda: consumed,
            lambda: None,
            lease=1000,
            max_message_bytes=1_000_000,
        )

    def _reconnect(self) -> None:
        self.reconnects += 1
