"""Timed calls to the cluster."""

from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

from callers.client import Client

#: Timeout of a job, in seconds; the largest take a few.
TIMEOUT = 120.0

T = TypeVar("T")


def timed(client: Client, task: str, *args: Any) -> tuple[float, Any]:
    """Return the ms from a call of `task` to its value, and the value."""
    return stopwatch(lambda: client.call(task, *args, timeout=TIMEOUT))


def stopwatch(work: Callable[[], T]) -> tuple[float, T]:
    """Return the ms that `work` took, and its value."""
    start = perf_counter()
    value = work()
    return 1000 * (perf_counter() - start), value
