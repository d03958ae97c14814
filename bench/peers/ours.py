"""This cluster, by `callers.client`, as its callers use it."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from celery import group

from bench import values
from bench.peers.protocol import MOMENT, TIMEOUT, Client, Pair, check, sums, timed
from callers.client import Client as Cluster

ADD, MAT_MUL = "add.tasks.add", "mat_mul.tasks.mat_mul"
#: Jobs that `queue` submits per call, and the number of its results that are checked.
SLICE = 10_000
CHECKED = 1000


class Peer(Client):
    """This cluster's client."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.cluster.connect()
        self.submit_one = partial(self.cluster.submit, ADD)

    def value(self, handle: Any) -> Any:
        """Wait by `Client.get`."""
        return self.cluster.get(handle, timeout=TIMEOUT)

    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit a group, which is one batch; `map` does not report when all are submitted."""
        return self.cluster.submit(group(self.cluster.signature(ADD, x, y) for x, y in pairs))

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Fetch the group's values."""
        return list(self.value(handle))

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

    # Requests to this cluster alone ------------------------------------------------

    def naps(self, count: int, seconds: float) -> float:
        """Run jobs that sleep, in bulk; return the seconds in total."""
        rows, task = [(1, 1, seconds)] * count, "add.tasks.longtime_add"
        return timed(lambda: self.cluster.map(task, rows, timeout=TIMEOUT, bundle=False))[0]

    def calls(self, count: int) -> float:
        """Make calls by `Client.map`, many in one job; return the seconds in total."""
        pairs = sums(count)
        seconds, found = timed(lambda: self.cluster.map(ADD, pairs, timeout=TIMEOUT))
        check(found, pairs)
        return seconds

    def queue(self, count: int) -> list[str]:
        """Submit jobs without fetching them; return the ids of the first ones."""
        pairs = sums(count)
        ids: list[str] = []
        for start in range(0, count, SLICE):
            jobs = self.submit_bulk(pairs[start : start + SLICE]).results
            ids = ids or [job.id for job in jobs[:CHECKED]]
        return ids

    def fetch(self, ids: Sequence[str]) -> None:
        """Fetch and check the results of those."""
        check(self.collect([self.cluster.app.AsyncResult(id_) for id_ in ids]), sums(len(ids)))

    def product(self, size: int, seed: int) -> None:
        """Call for a product, and keep it."""
        self._product = self.cluster.call(MAT_MUL, size, size, seed, timeout=TIMEOUT)

    def check_product(self, size: int, seed: int) -> None:
        """Check what `product` has kept."""
        values.check("mat_mul", self._product, values.product(size, size, seed))
