"""Jobs in flight on the stack, and their values."""

from time import monotonic
from typing import Any, TypeAlias

from celery.result import AsyncResult

from callers.client import Client
from tests.cluster.conftest import CONCURRENCY
from tests.support.waiting import eventually

Result: TypeAlias = "AsyncResult[Any]"
#: Jobs in flight during a fault: more than run at once, and long enough to become STARTED.
JOBS = [(i, i, 1.5) for i in range(30)]
SUMS = [2 * i for i in range(30)]


def submit(client: Client, workers: int = 1) -> list[Result]:
    """Submit the jobs, and return their results when `workers` workers are busy."""
    results = [client.submit("add.tasks.longtime_add", *args) for args in JOBS]
    busy = workers * CONCURRENCY
    eventually(
        "all workers are busy", lambda: sum(job.state == "STARTED" for job in results) >= busy
    )
    return results


def values(client: Client, results: list[Result], seconds: float = 60) -> list[Any]:
    """Wait for the values, even through lost connections."""
    deadline = monotonic() + seconds
    return [client.get(result, deadline - monotonic()) for result in results]
