"""saq on Redis: `enqueue` one by one, `map` in bulk, `apply` for one."""

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from saq import Queue

from bench.peers.on_asyncio import POLL, AsyncClient, add, who
from bench.peers.protocol import TIMEOUT, URL, Pair

#: Poll interval of many results, in seconds: `map` reads all that are left each time.
POLL_MAP = 0.05
#: Jobs per read.
READ = 500

queue = Queue.from_url(os.environ[URL])
settings = {"queue": queue, "functions": [add, who], "concurrency": 10}


class Peer(AsyncClient):
    """saq's client."""

    submit_who = staticmethod(partial(queue.enqueue, "who"))

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.run(queue.connect())

    def submit_one(self, x: int, y: int) -> Any:
        """Submit by `enqueue`; `map` does not report when all are submitted."""
        return queue.enqueue("add", x=x, y=y)

    async def value(self, handle: Any, poll: float = POLL) -> Any:
        """Fetch one."""
        return (await self._values([handle.key]))[0]

    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Read many at a time, in order, until they are complete."""
        return self.run(self._values([handle.key for handle in handles]))

    def map(self, pairs: Sequence[Pair]) -> Sequence[Any]:
        """Submit and fetch by `map`."""
        rows = [{"x": x, "y": y} for x, y in pairs]
        return self.run(queue.map("add", rows, timeout=TIMEOUT, poll_interval=POLL_MAP))

    def call(self, x: int, y: int) -> Any:
        """Submit and fetch by `apply`."""
        return self.run(queue.apply("add", timeout=TIMEOUT, poll_interval=POLL, x=x, y=y))

    async def _values(self, keys: Sequence[str]) -> list[Any]:
        values: list[Any] = []
        while len(values) < len(keys):
            for job in await queue.jobs(keys[len(values) : len(values) + READ]):
                if not job or not job.completed:
                    await asyncio.sleep(POLL)
                    break
                values.append(job.result)
        return values
