"""Hundreds of idle workers as threads of one process.

They do at Redis what the main process and the waiting process of a worker do, by the same code.
"""

from concurrent.futures import ThreadPoolExecutor
from queue import Empty
from threading import Event
from time import monotonic
from typing import Any, Self

from callers.client import Client
from celery_streams.transport import entries
from celery_streams.transport.channel import Channel
from celery_streams.worker.process import WAIT_SECONDS, turn_of

#: Seconds between two of a worker's heartbeats: Celery's default.
HEARTBEAT = 2.0
QUEUE = "add"


class IdleWorkers:
    """A number of idle workers, which ack the jobs they fetch; each has fetched when it is made."""

    def __init__(self, url: str, count: int) -> None:
        self._app: Any = Client(url, url).app
        self._count = count
        self._end = Event()
        has_fetched = [Event() for _ in range(count)]
        pool = ThreadPoolExecutor(count)
        self._workers = [pool.submit(self._work, *each) for each in enumerate(has_fetched)]
        for worker, fetched in zip(self._workers, has_fetched, strict=True):
            while not fetched.wait(0.1):
                if worker.done():
                    worker.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Stop them, and return how many jobs they have run."""
        self._end.set()
        return sum(worker.result() for worker in self._workers)

    def _work(self, number: int, fetched: Event) -> int:
        """Be an idle worker, and return how many jobs it has run."""
        jobs = 0
        next_beat = monotonic()
        with (
            self._app.connection_for_write() as to_monitors,
            self._app.connection_for_read() as connection,
        ):
            beat = self._app.events.Dispatcher(to_monitors, hostname=f"bench@{number}")
            channel: Channel = connection.channel()
            channel.deliveries.hand_over(f"bench:{number}:0")
            self._app.amqp.queues[QUEUE](channel).declare()
            channel.basic_consume(QUEUE, no_ack=False, callback=lambda _: None, consumer_tag="1")
            channel.client.connection = channel.client.connection_pool.get_connection()
            channel.maintenance.consumers = self._count
            while not self._end.is_set():
                if monotonic() >= next_beat:
                    next_beat += HEARTBEAT
                    beat.send("worker-heartbeat", freq=HEARTBEAT)
                channel.maintenance.run()
                if channel.fetch.waits and not turn_of(self._count):
                    self._end.wait(WAIT_SECONDS)
                    channel.fetch.waits = False
                found = _fetched(channel)
                if found is not None:
                    jobs += found
                    fetched.set()
            channel.deliveries.flush()
        return jobs


def _fetched(channel: Channel) -> int | None:
    """Fetch jobs and return how many, or None if there was no answer to the fetch."""
    fetch, link = channel.fetch, channel.client.connection
    try:
        fetch.from_streams(link, channel.queues.streams(QUEUE), 1, WAIT_SECONDS)
        found = entries.fetched(fetch.read(link)[0])
    except Empty:  # acks alone were answered, or the server had no group yet
        return None
    fetch.waits = not found
    for entry in found:
        channel.deliveries.ack_later(entry.tag)
    return len(found)
