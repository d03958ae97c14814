"""The requests to a client of the comparison, and what each client implements.

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
from typing import Any, TypeVar

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

Pair = tuple[int, int]
T = TypeVar("T")


def add(x: int, y: int) -> int:
    """Return x + y: the task of every peer."""
    return x + y


def who() -> int:
    """Return the id of this process, after a short sleep."""
    sleep(MOMENT)
    return os.getpid()


class Client(ABC):
    """A program that uses a system as its documentation says; handles are of any type."""

    #: Submit a sum, or a job of `who`, and return its handle.
    submit_one: Callable[[int, int], Any]
    submit_who: Callable[[], Any]

    @abstractmethod
    def value(self, handle: Any) -> Any:
        """Wait for a submitted job, and return its value."""

    @abstractmethod
    def submit_bulk(self, pairs: Sequence[Pair]) -> Any:
        """Submit a sum for each pair, in the library's fastest way."""

    def submit(self, pairs: Iterable[Pair]) -> Sequence[Any]:
        """Submit a sum for each pair, one after the other, and return the handles."""
        return [self.submit_one(x, y) for x, y in pairs]

    def collect(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Wait for submitted jobs, and return the values in order."""
        return [self.value(handle) for handle in handles]

    def collect_bulk(self, handle: Any) -> Sequence[Any]:
        """Wait for the jobs of `submit_bulk`, and return the values in order."""
        return self.collect(handle)

    def map(self, pairs: Sequence[Pair]) -> Sequence[Any]:
        """Submit in bulk and return the values, by one call if the library has one."""
        return self.collect_bulk(self.submit_bulk(pairs))

    def call(self, x: int, y: int) -> Any:
        """Return one sum."""
        return self.collect(self.submit([(x, y)]))[0]

    def who(self, count: int) -> Iterable[Any]:
        """Run `count` jobs, and return the workers that ran them."""
        return self.collect([self.submit_who() for _ in range(count)])

    # Requests: each checks all values, outside of the measured time ----------------

    def versions(self, names: Sequence[str]) -> dict[str, str]:
        """Return the versions of Python and of the packages named."""
        return {"python": sys.version.split()[0], **{name: version(name) for name in names}}

    def ready(self, workers: int) -> None:
        """Wait until `workers` workers have each run a job."""
        deadline = perf_counter() + TIMEOUT
        seen: set[Any] = set()
        while len(seen) < workers:
            if perf_counter() > deadline:
                raise TimeoutError(f"{len(seen)} of {workers} workers ran a job in {TIMEOUT} s")
            seen.update(self.who(WHO_JOBS))

    def each(self, count: int) -> tuple[float, float]:
        """Submit jobs one by one, then fetch all; return the seconds to submit and in total."""
        pairs = sums(count)
        to_submit, handles = timed(self.submit, pairs)
        to_collect, values = timed(self.collect, handles)
        check(values, pairs)
        return to_submit, to_submit + to_collect

    def submitted_in_bulk(self, count: int) -> float:
        """Submit jobs in bulk, then fetch them; return the seconds to submit."""
        pairs = sums(count)
        seconds, handle = timed(self.submit_bulk, pairs)
        check(self.collect_bulk(handle), pairs)
        return seconds

    def in_bulk(self, count: int) -> float:
        """Submit jobs in bulk and fetch all results; return the seconds."""
        pairs = sums(count)
        seconds, values = timed(self.map, pairs)
        check(values, pairs)
        return seconds

    def trips(self, count: int) -> list[float]:
        """Return the ms of each of `count` single jobs, one after the other."""
        pairs = sums(count)
        samples = [timed(self.call, *pair) for pair in pairs]
        check([value for _, value in samples], pairs)
        return [1000 * seconds for seconds, _ in samples]

    def load(self, rate: float) -> float:
        """Submit and fetch `rate` jobs a second, in small bursts, until the next request.

        Return the rate that was reached.
        """
        start = perf_counter()
        done = 0
        while not select.select([sys.stdin], [], [], 0)[0]:
            pairs = sums(BURST)
            check(self.collect(self.submit(pairs)), pairs)
            done += BURST
            sleep(max(0.0, start + done / rate - perf_counter()))
        return done / (perf_counter() - start)

    def stop(self) -> bool:
        """Do nothing: the request that ends `load`."""
        return True


def serve(client: object) -> None:
    """Answer requests from stdin with the methods of `client`, until stdin ends.

    `{"do": "in_bulk", "count": 100}` is answered by `{"value": …}` or by `{"error": …}`, in a line.
    """
    # Output of the library must not mix with the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Without buffering: the load polls for the next line.
    requests = FileIO(sys.stdin.fileno(), closefd=False)
    while line := requests.readline():
        request = json.loads(line)
        try:
            answer = {"value": getattr(client, request.pop("do"))(**request)}
        except Exception as error:  # noqa: BLE001 - the other side reports it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


def timed(work: Callable[..., T], *args: Any) -> tuple[float, T]:
    """Return the seconds that `work` took, and its value."""
    start = perf_counter()
    value = work(*args)
    return perf_counter() - start, value


def check(values: Sequence[Any], pairs: Sequence[Pair]) -> None:
    """Raise ValueError unless each value is its pair's sum."""
    if list(values) != [x + y for x, y in pairs]:
        raise ValueError("a sum is wrong or missing")


def sums(count: int) -> list[Pair]:
    """Return `count` different pairs."""
    return [(i, 2 * i + 1) for i in range(count)]
