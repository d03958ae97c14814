"""A client that times its calls, and removes their results: they would fill the server."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any, TypeVar

from celery.signals import before_task_publish

from callers.client import Client

#: Seconds that any job may take here; the largest take a few.
TIMEOUT = 120.0

T = TypeVar("T")


class Caller(AbstractContextManager["Caller"]):
    """A client of the cluster that the environment names."""

    def __init__(self) -> None:
        self.client = Client()
        self._submitted: list[str] = []
        before_task_publish.connect(self._note)

    def __exit__(self, *error: object) -> None:
        before_task_publish.disconnect(self._note)
        self.client.close()

    def call(self, task: str, *args: Any) -> Any:
        """Return the value of a job."""
        return self.timed(task, *args)[1]

    def timed(self, task: str, *args: Any) -> tuple[float, Any]:
        """Return how many ms a job took from here to here, and its value."""
        measured = stopwatch(lambda: self.client.call(task, *args, timeout=TIMEOUT))
        while self._submitted:
            self.client.app.AsyncResult(self._submitted.pop()).forget()
        return measured

    def _note(self, headers: dict[str, Any], **_: Any) -> None:
        self._submitted.append(headers["id"])


def stopwatch(work: Callable[[], T]) -> tuple[float, T]:
    """Return how many ms some work took, and what it gave."""
    start = perf_counter()
    value = work()
    return 1000 * (perf_counter() - start), value
