"""Celery's request, for a worker that survives a job's MemoryError, and one made of a message."""

from typing import Any

from billiard import einfo
from billiard.einfo import ExceptionInfo
from celery.utils.imports import symbol_by_name
from celery.worker import strategy
from celery.worker.request import Request as CeleryRequest

from celery_streams.errors import OutOfMemory

_celery: Any = strategy
_WRAPPER: Any = einfo.ExceptionWithTraceback  # type: ignore[attr-defined]  # not in the stubs

#: Celery's default for `Task.Request`.
CELERYS = "celery.worker.request:Request"
NAME = f"{__name__}:Request"


class Request(CeleryRequest):
    """One delivery of a job, in a worker."""

    def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> Any:
        """Record a failure, with a MemoryError replaced by OutOfMemory.

        Celery ends the worker on a MemoryError, and the requeued job then ends the next worker.
        """
        error = raised(exc_info)
        if isinstance(error, MemoryError):
            try:
                raise out_of_memory(error)
            except OutOfMemory:
                exc_info = ExceptionInfo()
        return super().on_failure(exc_info, *args, **options)

    def on_retry(self, exc_info: Any) -> None:
        """Tell monitors of a retry; in prefork, a pipe has unwrapped the exception."""
        exc_info.exception = raised(exc_info)
        super().on_retry(exc_info)

    def info(self, safe: bool = False) -> Any:  # noqa: FBT002 - Celery's
        """Return what remote control shows; a job that is acked early and runs has been acked."""
        runs_acked = self.time_start is not None and not self.task.acks_late
        return {**super().info(safe=safe), "acknowledged": self.acknowledged or runs_acked}


def out_of_memory(error: MemoryError) -> OutOfMemory:
    """Return the error to store for a MemoryError on the worker."""
    return OutOfMemory(f"not enough memory on the worker: {error or 'allocation failed'}")


def raised(info: ExceptionInfo) -> Any:
    """Return the exception that a job raised."""
    error: Any = info.exception
    return error.exc if isinstance(error, _WRAPPER) else error


def request_of(consumer: Any, message: Any) -> Any:
    """Return the request of a job's message; None if its task is unknown.

    Celery's strategy of the task, which makes it otherwise, also says that the job is received.
    """
    body, headers, decoded, utc = message.body, message.headers, False, True
    payload = message.payload
    if "args" in payload:
        body, headers, decoded, utc = _celery.hybrid_to_proto2(message, payload)
    elif "task" not in headers:
        body, headers, decoded, utc = _celery.proto1_to_proto2(message, payload)
    task = consumer.app.tasks.get(headers.get("task"))
    if task is None:
        return None
    return symbol_by_name(task.Request)(
        message,
        on_ack=message.ack_log_error,
        on_reject=message.reject_log_error,
        app=consumer.app,
        hostname=consumer.hostname,
        eventer=consumer.event_dispatcher,
        task=task,
        connection_errors=consumer.connection_errors,
        body=body,
        headers=headers,
        decoded=decoded,
        utc=utc,
    )
