"""The client of huey: a call and a blocking result one by one; `map` submits one by one, too."""

from collections.abc import Iterable, Sequence
from typing import Any

from bench.peers.huey.tasks import add, who
from bench.peers.protocol import TIMEOUT, Client, Pair, serve


class Huey(Client):
    """huey on Redis."""

    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit each by calling the task."""
        return [add(x, y) for x, y in pairs]

    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Fetch each, blocking."""
        return [handle.get(blocking=True, timeout=TIMEOUT) for handle in handles]

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit by `map`."""
        return add.map(pairs)

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Fetch the group's values."""
        values: list[Any] = handle.get(blocking=True, timeout=TIMEOUT)
        return values

    def who(self, count: int) -> Iterable[Any]:
        """Return the ids of the processes that ran the jobs."""
        return self.collect([who() for _ in range(count)])


if __name__ == "__main__":
    serve(Huey())
