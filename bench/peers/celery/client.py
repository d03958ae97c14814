"""The client of stock Celery: `delay` and `get` one by one, a group in bulk."""

from collections.abc import Iterable, Sequence
from typing import Any

from celery import group

from bench.peers.celery.tasks import add, who
from bench.peers.protocol import TIMEOUT, Client, Pair, serve


class StockCelery(Client):
    """Stock Celery."""

    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit each by `delay`."""
        return [add.delay(x, y) for x, y in pairs]

    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Fetch each by `get`."""
        return [handle.get(timeout=TIMEOUT) for handle in handles]

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit a group."""
        return group(add.s(x, y) for x, y in pairs).apply_async()

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Fetch the group's values together."""
        values: list[Any] = handle.get(timeout=TIMEOUT)
        return values

    def who(self, count: int) -> Iterable[Any]:
        """Return the ids of the processes that ran the jobs."""
        return self.collect([who.delay() for _ in range(count)])


if __name__ == "__main__":
    serve(StockCelery())
