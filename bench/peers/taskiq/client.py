"""The client of taskiq: `kiq` one by one, gathered in bulk, and `wait_result`."""

from collections.abc import Iterable, Sequence
from typing import Any

import uvloop

from bench.peers.concurrent import gathered
from bench.peers.protocol import TIMEOUT, Client, Pair, serve
from bench.peers.taskiq.tasks import add, broker, who

#: Poll interval of a result, in seconds; taskiq's default of 0.2 would dominate the times.
POLL = 0.001
#: The same for many results, so that polling leaves the CPU to the workers.
POLL_MANY = 0.02


class Taskiq(Client):
    """taskiq with its result backend for Redis."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.loop.run_until_complete(broker.startup())

    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit each by `kiq`, one awaited after the other."""

        async def submit() -> list[Any]:
            return [await add.kiq(x, y) for x, y in pairs]

        handles: list[Any] = self.loop.run_until_complete(submit())
        return handles

    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Fetch some at a time by `wait_result`."""
        poll = POLL if len(handles) == 1 else POLL_MANY
        values: list[Any] = self.loop.run_until_complete(
            gathered(lambda handle: _value(handle, poll), handles)
        )
        return values

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit some at a time."""
        return self.loop.run_until_complete(gathered(lambda pair: add.kiq(*pair), pairs))

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Fetch some at a time."""
        return self.collect(handle)

    def who(self, count: int) -> Iterable[Any]:
        """Return the ids of the processes that ran the jobs."""
        handles = self.loop.run_until_complete(gathered(lambda _: who.kiq(), range(count)))
        return self.collect(handles)


async def _value(handle: Any, poll: float) -> Any:
    result = await handle.wait_result(check_interval=poll, timeout=TIMEOUT)
    return result.return_value


if __name__ == "__main__":
    serve(Taskiq())
