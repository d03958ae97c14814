"""In whatever order things happen: a message comes until it is acknowledged, and then no more."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
from kombu import Connection

from celery_streams.transport import keys
from tests.streams.conftest import LEASE, Connect
from tests.support.collector import QUEUE, STOCK, Worker, left, publish
from tests.support.seed import chance

STEPS = 300


class Play:
    """Producers and consumers that do one thing after the other, and a record of it."""

    def __init__(self, connect: Connect, url: str) -> None:
        self.chance = chance()
        self.connect = connect
        self.producers = [connect(), Connection(url, transport=STOCK)]
        self.workers: list[Worker] = []
        self.published = 0
        self.acknowledged: set[int] = set()

    def publish(self) -> None:
        """Publish some messages, by the transport or by kombu's own."""
        count = self.chance.randrange(1, 6)
        bodies = range(self.published, self.published + count)
        priority = self.chance.choice((0, 3, 6, 9))
        publish(self.chance.choice(self.producers), *bodies, priority=priority)
        self.published += count

    def join(self) -> None:
        """Begin to consume, where not too many do."""
        if len(self.workers) < 4:
            self._join(self.chance.choice((0, 1, 3)))

    def _join(self, prefetch: int) -> None:
        options = {"lease": LEASE, "max_deliveries": 10_000}
        self.workers.append(Worker(self.connect(**options), prefetch))

    def fetch(self) -> None:
        """Fetch what there is; no message comes that was acknowledged."""
        if self.workers:
            worker = self.chance.choice(self.workers)
            worker.drain(0.01)
            assert not self.acknowledged & set(worker.bodies)

    def acknowledge(self) -> None:
        """Acknowledge a message."""
        if message := self._any_message():
            message.ack()
            self.acknowledged.add(message.payload)

    def release(self) -> None:
        """Give a message back."""
        if message := self._any_message():
            message.reject(requeue=True)

    def _any_message(self) -> Any:
        holders = [worker for worker in self.workers if worker.messages]
        if not holders:
            return None
        messages = self.chance.choice(holders).messages
        return messages.pop(self.chance.randrange(len(messages)))

    def leave(self) -> None:
        """End a consumer in order."""
        if self.workers:
            self._any_worker().connection.close()

    def crash(self) -> None:
        """End a consumer so that Redis hears no more of it: as kill -9 does, in this process."""
        if self.workers:
            channel = self._any_worker().channel
            deliveries = channel.deliveries
            deliveries._is_closed = True
            if deliveries._lease:
                deliveries._lease.end()
            if channel.client.connection:  # it has fetched
                channel.client.connection.disconnect()
            channel._disconnect_pools()

    def _any_worker(self) -> Worker:
        return self.workers.pop(self.chance.randrange(len(self.workers)))

    def finish(self, store: Any) -> None:
        """Acknowledge all that is left; fail if that does not come to an end."""
        self._join(0)
        deadline = monotonic() + 10 + 3 * LEASE
        while left(store) or store.llen(QUEUE):
            assert monotonic() < deadline, f"{left(store)} messages never came"
            for worker in self.workers:
                self.acknowledged.update(worker.drain(0.1))
                for message in worker.messages:
                    message.ack()
                worker.messages.clear()


@pytest.mark.parametrize("run", range(3))
def test_nothing_is_lost_and_nothing_comes_again(
    connect: Connect, url: str, store: Any, run: int
) -> None:
    play = Play(connect, url)
    often: list[Callable[[], None]] = [play.publish, play.fetch, play.fetch, play.acknowledge]
    seldom = [play.join, play.release, play.leave, play.crash]
    for _ in range(STEPS):
        play.chance.choice(play.chance.choice((often, often, often, seldom)))()
    play.finish(store)

    assert play.acknowledged == {*range(play.published)}
    assert not store.exists(keys.dead(QUEUE))
