"""The client of rq: `enqueue` one by one, `enqueue_many` in bulk; results by blocking reads."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from redis import Redis
from rq import Queue

from bench.peers.protocol import TIMEOUT, URL, Client, Pair, serve
from bench.peers.rq.tasks import add, who


class Rq(Client):
    """rq."""

    def __init__(self) -> None:
        self.queue = Queue(connection=Redis.from_url(os.environ[URL]))

    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit each by `enqueue`."""
        return [self.queue.enqueue(add, x, y) for x, y in pairs]

    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Fetch each; `latest_result` blocks in Redis, where `return_value` would be polled."""
        return [handle.latest_result(timeout=TIMEOUT).return_value for handle in handles]

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit by `enqueue_many`: one pipeline."""
        return self.queue.enqueue_many([Queue.prepare_data(add, args=pair) for pair in pairs])

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Fetch each."""
        return self.collect(handle)

    def who(self, count: int) -> Iterable[Any]:
        """Return the ids of the processes that ran the jobs."""
        return self.collect([self.queue.enqueue(who) for _ in range(count)])


if __name__ == "__main__":
    serve(Rq())
