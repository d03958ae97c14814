"""The requests to the clients of the comparison, one line of JSON each.

Peers' environments import no other module of ours, so it needs only the standard library.
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
#: The variable that chooses one of taskiq's brokers.
VARIANT = "BENCH_VARIANT"
#: Timeout of a result, in seconds.
TIMEOUT = 120
#: Jobs that the load submits before it fetches their results.
BURST = 10
#: Duration of the task `who`, in seconds, so that another worker gets the next one.
MOMENT = 0.005
#: Jobs of `who` per request.
WHO_JOBS = 8

#: Jobs that are queued per call, and the number of results that are checked.
SLICE = 10_000
CHECKED = 1000

Pair = tuple[int, int]


class Client(ABC):
    """A program that uses a system as its documentation says; handles are of any type."""

    @abstractmethod
    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit a sum for each pair, one after the other, and return the handles."""

    @abstractmethod
    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Wait for submitted jobs, and return the values in order."""

    @abstractmethod
    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit a sum for each pair, in the library's fastest way."""

    @abstractmethod
    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Wait for the jobs of `submit_bulk`, and return the values in order."""

    def map(self, pairs: Sequence[Pair]) -> Sequence[Any]:
        """Submit in bulk and return the values, by one call if the library has one."""
        return self.collect_bulk(self.submit_bulk(pairs))

    def call(self, x: int, y: int) -> Any:
        """Return one sum."""
        return self.collect(self.submit([(x, y)]))[0]

    @abstractmethod
    def who(self, count: int) -> Iterable[Any]:
        """Run `count` jobs, and return the workers that ran them."""

    def naps(self, count: int, seconds: float) -> None:
        """Run jobs that sleep, each by itself."""
        raise NotImplementedError

    def calls(self, pairs: Sequence[Pair]) -> Sequence[Any]:
        """Return the values of many calls, in fewer jobs."""
        raise NotImplementedError

    def leave(self, pairs: Sequence[Pair]) -> list[str]:
        """Submit in bulk, and return the ids, by which another client can fetch the results."""
        raise NotImplementedError

    def fetch(self, ids: Sequence[str]) -> Sequence[Any]:
        """Return the values of jobs that another client submitted."""
        raise NotImplementedError


def serve(client: Client) -> None:
    """Answer requests from stdin, on stdout, until stdin ends.

    `{"do": "each", "count": 100}` is answered by a line with the result, or by `{"error": …}`.
    """
    # Output of the library must not mix with the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while line := _line():
        request = json.loads(line)
        try:
            answer = _DO[request.pop("do")](client, **request)
        except Exception as error:  # noqa: BLE001 - the other side reports it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


def _line() -> bytes:
    """Return the next line without buffering: the load polls for the next one."""
    return FileIO(sys.stdin.fileno(), closefd=False).readline()


def _versions(_: Client, names: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python and of the packages named."""
    return {"python": sys.version.split()[0], **{name: version(name) for name in names}}


def _ready(client: Client, workers: int) -> dict[str, Any]:
    """Wait until `workers` workers have each run a job."""
    deadline = perf_counter() + TIMEOUT
    seen: set[Any] = set()
    while len(seen) < workers:
        if perf_counter() > deadline:
            raise TimeoutError(f"{len(seen)} of {workers} workers ran a job within {TIMEOUT} s")
        seen.update(client.who(WHO_JOBS))
    return {}


def _each(client: Client, count: int) -> dict[str, float]:
    """Submit jobs one by one, then fetch all results; return the seconds to submit and in total."""
    pairs = _pairs(count)
    start = perf_counter()
    handles = client.submit(pairs)
    submitted = perf_counter()
    values = client.collect(handles)
    end = perf_counter()
    check(values, pairs)
    return {"submit": submitted - start, "total": end - start}


def _submit_bulk(client: Client, count: int) -> dict[str, float]:
    """Submit jobs in bulk, then fetch them; return the seconds to submit."""
    pairs = _pairs(count)
    start = perf_counter()
    handle = client.submit_bulk(pairs)
    submitted = perf_counter()
    check(client.collect_bulk(handle), pairs)
    return {"submit": submitted - start}


def _bulk(client: Client, count: int) -> dict[str, float]:
    """Submit jobs in bulk and fetch all results; return the seconds in total."""
    pairs = _pairs(count)
    start = perf_counter()
    values = client.map(pairs)
    total = perf_counter() - start
    check(values, pairs)
    return {"total": total}


def _trips(client: Client, count: int) -> dict[str, list[float]]:
    """Return the ms of each of `count` single jobs, one after the other."""
    samples = []
    for x, y in _pairs(count):
        start = perf_counter()
        value = client.call(x, y)
        samples.append(1000 * (perf_counter() - start))
        check([value], [(x, y)])
    return {"ms": samples}


def _load(client: Client, rate: float) -> dict[str, float]:
    """Submit and fetch `rate` jobs a second, in small bursts, until the next request."""
    start = perf_counter()
    done = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        pairs = _pairs(BURST)
        check(client.collect(client.submit(pairs)), pairs)
        done += BURST
        sleep(max(0.0, start + done / rate - perf_counter()))
    _line()
    return {"jobs": done, "seconds": perf_counter() - start}


def _naps(client: Client, count: int, seconds: float) -> dict[str, float]:
    """Run jobs that sleep, in bulk; return the seconds in total."""
    start = perf_counter()
    client.naps(count, seconds)
    return {"total": perf_counter() - start}


def _calls(client: Client, count: int) -> dict[str, float]:
    """Make calls in fewer jobs; return the seconds in total."""
    pairs = _pairs(count)
    start = perf_counter()
    values = client.calls(pairs)
    total = perf_counter() - start
    check(values, pairs)
    return {"total": total}


def _queue(client: Client, count: int) -> dict[str, Any]:
    """Submit jobs without fetching them; return the ids of the first ones."""
    pairs = _pairs(count)
    ids: list[str] = []
    for start in range(0, count, SLICE):
        batch = client.leave(pairs[start : start + SLICE])
        ids = ids or batch[:CHECKED]
    return {"ids": ids}


def _fetch(client: Client, ids: Sequence[str]) -> dict[str, Any]:
    """Fetch and check the values of those."""
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
    "naps": _naps,
    "calls": _calls,
    "queue": _queue,
    "fetch": _fetch,
}


def check(values: Sequence[Any], pairs: Sequence[Pair]) -> None:
    """Raise ValueError unless each value is its pair's sum."""
    if list(values) != [x + y for x, y in pairs]:
        raise ValueError("a sum is wrong or missing")


def _pairs(count: int) -> list[Pair]:
    return [(i, 2 * i + 1) for i in range(count)]
