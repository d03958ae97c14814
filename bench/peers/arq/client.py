"""The client of arq: `enqueue_job` one by one, gathered in bulk, and `result`."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from arq import create_pool

from bench.peers.arq.tasks import redis_settings
from bench.peers.concurrent import gathered
from bench.peers.protocol import TIMEOUT, Client, Pair, serve

#: Poll interval of a result, in seconds; arq's default of 0.5 would dominate the times.
POLL = 0.001
#: The same for many results, so that polling leaves the CPU to the workers.
POLL_MANY = 0.02


class Arq(Client):
    """arq."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.redis = self.loop.run_until_complete(create_pool(redis_settings))

    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit each by `enqueue_job`, one awaited after the other."""

        async def submit() -> list[Any]:
            return [await self.redis.enqueue_job("add", x, y) for x, y in pairs]

        return self.loop.run_until_complete(submit())

    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Fetch some at a time by `result`."""
        poll = POLL if len(handles) == 1 else POLL_MANY
        return self.loop.run_until_complete(gathered(lambda handle: _value(handle, poll), handles))

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit some at a time."""
        return self.loop.run_until_complete(
            gathered(lambda pair: self.redis.enqueue_job("add", *pair), pairs)
        )

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Fetch some at a time."""
        return self.collect(handle)

    def who(self, count: int) -> Iterable[Any]:
        """Return the ids of the processes that ran the jobs."""
        handles = self.loop.run_until_complete(
            gathered(lambda _: self.redis.enqueue_job("who"), range(count))
        )
        return self.collect(handles)


async def _value(handle: Any, poll: float) -> Any:
    return await handle.result(timeout=TIMEOUT, poll_delay=poll)


if __name__ == "__main__":
    serve(Arq())
