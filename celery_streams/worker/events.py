"""The events of a worker, and those of jobs that run past Celery's requests, the same as Celery's.

A process of the pool collects those of its jobs, and sends many together.
"""

from time import monotonic, time
from typing import Any

from celery.events.dispatcher import EventDispatcher
from celery.states import FAILURE, RETRY
from celery.utils.saferepr import saferepr
from celery.utils.serialization import get_pickled_exception
from celery.utils.time import utcoffset
from kombu.utils.encoding import safe_repr, safe_str

from celery_streams import fastjson

#: Seconds for which a process collects events, and how many of them, at most.
COLLECT_SECONDS, MAX_EVENTS = 0.1, 1000
#: The group of events that are collected.
_GROUP = "task"


class Dispatcher(EventDispatcher):
    """Celery's dispatcher, with a faster encoder."""

    # What the type stubs leave out of Celery's class.
    _group_buffer: dict[str, list[dict[str, Any]]]
    buffer_group: Any
    buffer_limit: int
    clock: Any
    mutex: Any
    pid: int
    serializer: str
    #: When the collected events were sent, by the monotonic clock.
    sent_at = 0.0

    def collect_jobs(self) -> None:
        """Collect the events of jobs from now on."""
        self.buffer_group = frozenset({_GROUP})
        self.buffer_limit = MAX_EVENTS

    def send_collected(self) -> None:
        """Send what is collected."""
        self.sent_at = monotonic()
        # A job itself may be about to send one, interrupted by a signal.
        if self.enabled and not self.mutex.locked():
            self.flush()

    def collect(self, event: dict[str, Any]) -> None:
        """Collect a job's event, to be sent by `send_collected`."""
        self._group_buffer[_GROUP].append(
            {**event, "clock": self.clock.forward(), "timestamp": time()}
        )

    def _publish(self, event: Any, producer: Any, routing_key: str, **options: Any) -> Any:
        text = fastjson.encode(event) if self.serializer == "json" else None
        sender = _Encoded(producer, text) if producer and text else producer
        return super()._publish(event, sender, routing_key, **options)  # type: ignore[misc]


class _Encoded:
    """A producer that publishes events which are encoded already."""

    def __init__(self, producer: Any, text: bytes) -> None:
        self._producer = producer
        self._text = text

    def publish(self, _: Any, serializer: str, **options: Any) -> Any:
        return self._producer.publish(
            self._text,
            content_type=f"application/{serializer}",
            content_encoding="utf-8",
            **options,
        )


def sends_events(dispatcher: Any) -> bool:
    """Return True if a worker's event dispatcher sends the events of jobs."""
    return bool(
        dispatcher and dispatcher.enabled and (not dispatcher.groups or _GROUP in dispatcher.groups)
    )


class JobEvents:
    """The events of the jobs of a fetch, which a process' dispatcher collects."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._collect = dispatcher.collect
        self._common = {
            "hostname": dispatcher.hostname,
            "utcoffset": utcoffset(),
            "pid": dispatcher.pid,
        }

    def _send(self, kind: str, **fields: Any) -> None:
        self._collect({"type": kind, **self._common, **fields})

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
