"""The client of this cluster: `callers.client`, as its callers use it."""

from collections.abc import Iterable, Sequence
from typing import Any

from celery import group

from bench.peers.protocol import MOMENT, TIMEOUT, Client, Pair, serve
from callers.client import Client as Cluster

ADD = "add.tasks.add"


class Ours(Client):
    """This cluster."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.cluster.connect()

    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit each by `Client.submit`."""
        return [self.cluster.submit(ADD, x, y) for x, y in pairs]

    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Fetch each by `Client.get`."""
        return [self.cluster.get(handle, timeout=TIMEOUT) for handle in handles]

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit a group, which is one batch; `map` does not report when all are submitted."""
        return self.cluster.submit(group(self.cluster.signature(ADD, x, y) for x, y in pairs))

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Fetch the group's values."""
        values: list[Any] = self.cluster.get(handle, timeout=TIMEOUT)
        return values

    def map(self, pairs: Sequence[Pair]) -> Sequence[Any]:
        """Submit and fetch by `Client.map`, each job by itself."""
        return self.cluster.map(ADD, pairs, timeout=TIMEOUT, bundle=False)

    def call(self, x: int, y: int) -> Any:
        """Submit and fetch by `Client.call`."""
        return self.cluster.call(ADD, x, y, timeout=TIMEOUT)

    def who(self, count: int) -> Iterable[Any]:
        """Return the processes of workers, after enough slow jobs for each to get some."""
        self.naps(count, MOMENT)
        stats = self.cluster.app.control.inspect(timeout=1.0).stats() or {}
        return [pid for each in stats.values() for pid in each["pool"]["processes"]]

    def naps(self, count: int, seconds: float) -> None:
        """Run jobs of `longtime_add`."""
        rows = [(1, 1, seconds)] * count
        self.cluster.map("add.tasks.longtime_add", rows, timeout=TIMEOUT, bundle=False)

    def calls(self, pairs: Sequence[Pair]) -> Sequence[Any]:
        """Call by `Client.map`."""
        return self.cluster.map(ADD, pairs, timeout=TIMEOUT)

    def leave(self, pairs: Sequence[Pair]) -> list[str]:
        """Submit a group."""
        return [job.id for job in self.submit_bulk(pairs).results]

    def fetch(self, ids: Sequence[str]) -> Sequence[Any]:
        """Fetch by Celery's AsyncResult."""
        return self.collect([self.cluster.app.AsyncResult(id_) for id_ in ids])


if __name__ == "__main__":
    serve(Ours())
