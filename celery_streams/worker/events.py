"""The events of jobs that run past Celery's requests, the same as those of Celery's."""

from typing import Any

from celery.states import FAILURE, RETRY
from celery.utils.saferepr import saferepr
from celery.utils.serialization import get_pickled_exception
from kombu.utils.encoding import safe_repr, safe_str


def sends_events(dispatcher: Any) -> bool:
    """Return True if a worker's event dispatcher sends the events of jobs."""
    return bool(
        dispatcher and dispatcher.enabled and (not dispatcher.groups or "task" in dispatcher.groups)
    )


class JobEvents:
    """Sends the events of jobs by a worker's event dispatcher, which collects them."""

    def __init__(self, dispatcher: Any) -> None:
        self._send = dispatcher.send

    def begun(self, request: dict[str, Any]) -> None:
        """Send that a job is received, and that it starts."""
        self._send(
            "task-received",
            uuid=request["id"],
            name=request["task"],
            args=request.get("argsrepr") or saferepr(request["args"]),
            kwargs=request.get("kwargsrepr") or saferepr(request["kwargs"]),
            root_id=request.get("root_id"),
            parent_id=request.get("parent_id"),
            retries=request.get("retries", 0),
            eta=request.get("eta"),
            expires=None,
        )
        self._send("task-started", uuid=request["id"])

    def ended(self, job_id: str, traced: Any) -> None:
        """Send how a job ended, by what its tracer returns."""
        info = traced.info
        if info is None:
            self._send("task-succeeded", uuid=job_id, result=traced.retstr, runtime=traced.runtime)
        elif info.state == RETRY:
            error = safe_repr(traced.retval.exception.exc)
            text = safe_str(traced.retval.traceback)
            self._send("task-retried", uuid=job_id, exception=error, traceback=text)
        elif info.state == FAILURE:
            error = safe_repr(get_pickled_exception(traced.retval.exception))
            text = traced.retval.traceback
            self._send("task-failed", uuid=job_id, exception=error, traceback=text)
