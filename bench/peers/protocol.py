"""What every client of the comparison is asked for, a line of JSON at a time.

All of ours that a peer's environment sees: it imports the standard library alone.
"""

import json
import os
import select
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from io import FileIO
from time import perf_counter, sleep
from typing import Any

#: The variable with the server's address, its password included.
URL = "BENCH_REDIS_URL"
#: The variable with which of taskiq's brokers is meant.
VARIANT = "BENCH_VARIANT"
#: Seconds that any one result may take.
TIMEOUT = 120
#: Jobs that the load's client submits before it fetches them.
BURST = 10
#: Seconds that the task `who` takes: meanwhile another worker gets the next one.
MOMENT = 0.005
#: Jobs that are asked who did them, at a time.
ASKED = 8

#: Jobs that are queued at a time where very many are, and how many of those are checked.
SLICE = 10_000
CHECKED = 1000

Pair = tuple[int, int]


class Client(ABC):
    """A program that uses one system as its documentation says; handles are whatever it gives."""

    @abstractmethod
    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit a sum a pair, one after the other, and return the handles."""

    @abstractmethod
    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Wait for what was submitted, and return the values in order."""

    @abstractmethod
    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit a sum a pair, the quickest way that the library has."""

    @abstractmethod
    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Wait for what `submit_bulk` submitted, and return the values in order."""

    def map(self, pairs: Sequence[Pair]) -> Sequence[Any]:
        """Submit in bulk and return the values: one call, where the library has one."""
        return self.collect_bulk(self.submit_bulk(pairs))

    def call(self, x: int, y: int) -> Any:
        """Return one sum."""
        return self.collect(self.submit([(x, y)]))[0]

    @abstractmethod
    def who(self, count: int) -> Iterable[Any]:
        """Run so many jobs, and return which workers did them."""

    def chunks(self, count: int, size: int) -> Sequence[Any]:
        """Return so many sums, i + i, computed in jobs of `size` of them."""
        raise NotImplementedError

    def leave(self, pairs: Sequence[Pair]) -> list[str]:
        """Submit in bulk, and return ids under which anybody can fetch the results."""
        raise NotImplementedError

    def fetch(self, ids: Sequence[str]) -> Sequence[Any]:
        """Return the values of jobs that another client submitted."""
        raise NotImplementedError


def serve(client: Client) -> None:
    """Answer requests from stdin, on stdout, until stdin ends.

    `{"do": "each", "count": 100}` is answered by a line with what it gave, or `{"error": …}`.
    """
    # Whatever the library prints must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while line := _line():
        request = json.loads(line)
        try:
            answer = _DO[request.pop("do")](client, **request)
        except Exception as error:  # noqa: BLE001 - whatever it was, the other side tells
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


def _line() -> bytes:
    """Return the next line, and read no further: the load looks whether there is one."""
    return FileIO(sys.stdin.fileno(), closefd=False).readline()


def _versions(_: Client, names: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python and of the packages named."""
    return {"python": sys.version.split()[0], **{name: version(name) for name in names}}


def _ready(client: Client, workers: int) -> dict[str, Any]:
    """Wait until so many workers have each done a job."""
    deadline = perf_counter() + TIMEOUT
    seen: set[Any] = set()
    while len(seen) < workers:
        if perf_counter() > deadline:
            raise TimeoutError(f"{len(seen)} of {workers} workers did a job in {TIMEOUT} s")
        seen.update(client.who(ASKED))
    return {}


def _each(client: Client, count: int) -> dict[str, float]:
    """Submit jobs one by one, then fetch all results: the seconds of either and of both."""
    pairs = _pairs(count)
    start = perf_counter()
    handles = client.submit(pairs)
    submitted = perf_counter()
    values = client.collect(handles)
    end = perf_counter()
    check(values, pairs)
    return {"submit": submitted - start, "total": end - start}


def _submit_bulk(client: Client, count: int) -> dict[str, float]:
    """Submit jobs in bulk: the seconds until all are; then fetch them."""
    pairs = _pairs(count)
    start = perf_counter()
    handle = client.submit_bulk(pairs)
    submitted = perf_counter()
    check(client.collect_bulk(handle), pairs)
    return {"submit": submitted - start}


def _bulk(client: Client, count: int) -> dict[str, float]:
    """Submit jobs in bulk and fetch all results: the seconds of both."""
    pairs = _pairs(count)
    start = perf_counter()
    values = client.map(pairs)
    total = perf_counter() - start
    check(values, pairs)
    return {"total": total}


def _trips(client: Client, count: int) -> dict[str, list[float]]:
    """Return how many ms each of some single jobs took, one after the other."""
    samples = []
    for x, y in _pairs(count):
        start = perf_counter()
        value = client.call(x, y)
        samples.append(1000 * (perf_counter() - start))
        check([value], [(x, y)])
    return {"ms": samples}


def _load(client: Client, rate: float) -> dict[str, float]:
    """Submit and fetch so many jobs a second, in small bursts, until there is another line."""
    start = perf_counter()
    done = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        pairs = _pairs(BURST)
        check(client.collect(client.submit(pairs)), pairs)
        done += BURST
        sleep(max(0.0, start + done / rate - perf_counter()))
    _line()
    return {"jobs": done, "seconds": perf_counter() - start}


def _chunks(client: Client, count: int, size: int) -> dict[str, float]:
    """Compute sums many to a job: the seconds until all are here."""
    start = perf_counter()
    values = client.chunks(count, size)
    total = perf_counter() - start
    check(values, [(i, i) for i in range(count)])
    return {"total": total}


def _queue(client: Client, count: int) -> dict[str, Any]:
    """Leave jobs in their queue, and return the ids of the first ones."""
    pairs = _pairs(count)
    ids: list[str] = []
    for start in range(0, count, SLICE):
        several = client.leave(pairs[start : start + SLICE])
        ids = ids or several[:CHECKED]
    return {"ids": ids}


def _fetch(client: Client, ids: Sequence[str]) -> dict[str, Any]:
    """Check the values of the first ones."""
    check(client.fetch(ids), _pairs(len(ids)))
    return {}


_DO: dict[str, Callable[..., Any]] = {
    "versions": _versions,
    "ready": _ready,
    "each": _each,
    "submit_bulk": _submit_bulk,
    "bulk": _bulk,
    "trips": _trips,
    "load": _load,
    "chunks": _chunks,
    "queue": _queue,
    "fetch": _fetch,
}


def check(values: Sequence[Any], pairs: Sequence[Pair]) -> None:
    """Raise ValueError unless each value is its pair's sum."""
    if list(values) != [x + y for x, y in pairs]:
        raise ValueError("a sum is wrong or missing")


def _pairs(count: int) -> list[Pair]:
    return [(i, 2 * i + 1) for i in range(count)]
