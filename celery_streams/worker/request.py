"""Celery's request, for a worker that survives a job's MemoryError."""

from typing import Any

from billiard.einfo import ExceptionInfo
from celery.worker.request import Request as CeleryRequest

from celery_streams.errors import OutOfMemory

#: Celery's default for `Task.Request`.
CELERYS = "celery.worker.request:Request"
NAME = f"{__name__}:Request"


class Request(CeleryRequest):
    """One delivery of a job, in a worker."""

    def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> Any:
        """Record a failure, with a MemoryError replaced by OutOfMemory.

        Celery ends the worker on a MemoryError, and the requeued job then ends the next worker.
        """
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, MemoryError):
            try:
                raise out_of_memory(error)
            except OutOfMemory:
                exc_info = ExceptionInfo()
        return super().on_failure(exc_info, *args, **options)


def out_of_memory(error: MemoryError) -> OutOfMemory:
    """Return the error to store for a MemoryError on the worker."""
    return OutOfMemory(f"not enough memory on the worker: {error or 'allocation failed'}")
