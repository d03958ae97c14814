"""The client of dramatiq: `send` and `get_result` one by one, a group in bulk."""

from collections.abc import Iterable, Sequence
from typing import Any

from dramatiq import group

from bench.peers.dramatiq.tasks import add, who
from bench.peers.protocol import TIMEOUT, Client, Pair, serve

MILLISECONDS = 1000 * TIMEOUT


class Dramatiq(Client):
    """dramatiq with its results backend."""

    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit each by `send`."""
        return [add.send(x, y) for x, y in pairs]

    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Fetch each; the backend blocks in Redis, and does not poll."""
        return [handle.get_result(block=True, timeout=MILLISECONDS) for handle in handles]

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit a group."""
        return group(add.message(x, y) for x, y in pairs).run()

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Fetch the group's values."""
        return list(handle.get_results(block=True, timeout=MILLISECONDS))

    def who(self, count: int) -> Iterable[Any]:
        """Return the ids of the processes that ran the jobs."""
        return self.collect([who.send() for _ in range(count)])


if __name__ == "__main__":
    serve(Dramatiq())
