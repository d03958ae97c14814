"""Clients on asyncio: one operation awaited after the other, or a bounded number at a time."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

from bench.peers import protocol
from bench.peers.protocol import Client, Pair

#: Limit for concurrent operations.
MAX_OPERATIONS = 50
#: Poll interval of a result, in seconds; the libraries' defaults would dominate the times.
POLL = 0.001
#: The same for many results, so that polling leaves the CPU to the workers.
POLL_MANY = 0.02

T = TypeVar("T")
V = TypeVar("V")
Work = Coroutine[Any, Any, V]


async def add(_: Any, x: int, y: int) -> int:
    """Return x + y; arq and saq pass a context first."""
    return x + y


async def who(_: Any) -> int:
    """Return the id of this process, after a short sleep."""
    return protocol.who()


class AsyncClient(Client):
    """A client whose library is used from coroutines, which run on `loop`.

    `submit_one` and `submit_who` return coroutines.
    """

    loop: asyncio.AbstractEventLoop

    @abstractmethod
    async def value(self, handle: Any, poll: float = POLL) -> Any:
        """Return the value of a job, looked for each `poll` seconds."""

    def run(self, work: Work[V]) -> V:
        """Return the value of a coroutine."""
        return self.loop.run_until_complete(work)

    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit each, one awaited after the other."""

        async def submit() -> list[Any]:
            return [await self.submit_one(x, y) for x, y in pairs]

        return self.run(submit())

    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Fetch some at a time."""
        poll = POLL if len(handles) == 1 else POLL_MANY
        return self.run(_gathered(lambda handle: self.value(handle, poll), handles))

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit some at a time."""
        return self.run(_gathered(lambda pair: self.submit_one(*pair), pairs))

    def who(self, count: int) -> Iterable[Any]:
        """Return the ids of the processes that ran the jobs."""
        return self.collect(self.run(_gathered(lambda _: self.submit_who(), range(count))))


async def _gathered(work: Callable[[T], Work[V]], items: Iterable[T]) -> list[V]:
    """Return the value of `work` for each item, in order."""
    values: list[V] = []
    left = iter(items)
    while several := list(islice(left, MAX_OPERATIONS)):
        values += await asyncio.gather(*map(work, several))
    return values
