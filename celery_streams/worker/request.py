"""Celery's request, for a worker that outlives every end of a job."""

from typing import Any

from billiard.einfo import ExceptionInfo
from celery.worker.request import Request as CeleryRequest

from celery_streams.errors import OutOfMemory

#: How Celery names its own.
CELERYS = "celery.worker.request:Request"
NAME = f"{__name__}:Request"


class Request(CeleryRequest):
    """One delivery of a job, as the worker's main process sees it."""

    def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> Any:
        """Record a failure, a MemoryError as OutOfMemory.

        Celery ends the worker for a MemoryError, and the job ends the next one.
        """
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, MemoryError):
            try:
                raise out_of_memory(error)
            except OutOfMemory:
                exc_info = ExceptionInfo()
        return super().on_failure(exc_info, *args, **options)


def out_of_memory(error: MemoryError) -> OutOfMemory:
    """Return the error that the caller gets for a worker's MemoryError."""
    return OutOfMemory(f"not enough memory on the worker: {error or 'allocation failed'}")
