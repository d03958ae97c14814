"""The client of saq: `enqueue` one by one, `map` in bulk, `apply` for one."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from bench.peers.concurrent import gathered
from bench.peers.protocol import TIMEOUT, Client, Pair, serve
from bench.peers.saq.tasks import queue

#: Poll interval of a result, in seconds; saq's default of 0.5 would dominate the times.
POLL = 0.001
#: The same for many results: `map` reads all that are left each time.
POLL_MANY = 0.05
#: Jobs per read.
READ = 500


class Saq(Client):
    """saq on Redis."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(queue.connect())

    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit each by `enqueue`, one awaited after the other."""

        async def submit() -> list[Any]:
            return [await queue.enqueue("add", x=x, y=y) for x, y in pairs]

        return self.loop.run_until_complete(submit())

    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Read many at a time, in order, until they are complete."""
        return self.loop.run_until_complete(_values([handle.key for handle in handles]))

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit several at a time; `map` does not report when all are submitted."""
        return self.loop.run_until_complete(
            gathered(lambda pair: queue.enqueue("add", x=pair[0], y=pair[1]), pairs)
        )

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Read many at a time."""
        return self.collect(handle)

    def map(self, pairs: Sequence[Pair]) -> Sequence[Any]:
        """Submit and fetch by `map`."""
        work = queue.map(
            "add", [{"x": x, "y": y} for x, y in pairs], timeout=TIMEOUT, poll_interval=POLL_MANY
        )
        return self.loop.run_until_complete(work)

    def call(self, x: int, y: int) -> Any:
        """Submit and fetch by `apply`."""
        work = queue.apply("add", timeout=TIMEOUT, poll_interval=POLL, x=x, y=y)
        return self.loop.run_until_complete(work)

    def who(self, count: int) -> Iterable[Any]:
        """Return the ids of the processes that ran the jobs."""
        work = queue.map("who", [{} for _ in range(count)], timeout=TIMEOUT, poll_interval=POLL)
        return self.loop.run_until_complete(work)


async def _values(keys: Sequence[str]) -> list[Any]:
    values: list[Any] = []
    while len(values) < len(keys):
        jobs = await queue.jobs(keys[len(values) : len(values) + READ])
        for job in jobs:
            if not job or not job.completed:
                await asyncio.sleep(POLL)
                break
            values.append(job.result)
    return values


if __name__ == "__main__":
    serve(Saq())
