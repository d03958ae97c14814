"""Calls to the cluster, and how long they take."""

from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

from callers.client import Client

#: Seconds that any job may take here; the largest take a few.
TIMEOUT = 120.0

T = TypeVar("T")


def timed(client: Client, task: str, *args: Any) -> tuple[float, Any]:
    """Return how many ms a job took, from the call to its value here, and the value."""
    return stopwatch(lambda: client.call(task, *args, timeout=TIMEOUT))


def stopwatch(work: Callable[[], T]) -> tuple[float, T]:
    """Return how many ms some work took, and what it gave."""
    start = perf_counter()
    value = work()
    return 1000 * (perf_counter() - start), value
