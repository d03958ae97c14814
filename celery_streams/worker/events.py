"""The events of a worker, and those of jobs that run past Celery's requests, the same as Celery's.

A process of the pool collects those of its jobs, and sends many together.
"""

from contextlib import suppress
from time import monotonic, time
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.events.dispatcher import EventDispatcher
from celery.events.event import group_from
from celery.states import FAILURE, RETRY
from celery.utils.saferepr import saferepr
from celery.utils.serialization import get_pickled_exception
from celery.utils.time import utcoffset
from kombu.exceptions import OperationalError
from kombu.utils.encoding import safe_repr, safe_str
from kombu.utils.json import dumps
from redis.exceptions import RedisError

from celery_streams import fastjson
from celery_streams.worker.request import raised
from celery_streams.worker.scoreboard import Slot

#: Seconds for which a process collects events at most.
COLLECT_SECONDS = 0.1
#: The group of the events of jobs.
_GROUP = "task"


class Dispatcher(EventDispatcher):
    """Celery's dispatcher; in a process of the pool, it collects the events of jobs in a slot.

    There the main process finds them if the process dies.
    """

    # What the type stubs leave out of Celery's class.
    clock: Any
    delivery_mode: Any
    exchange: Any
    headers: Any
    flush: Any
    mutex: Any
    pid: int
    producer: Any
    _outbound_buffer: Any
    _publish: Any
    #: When the collected events were sent, by the monotonic clock.
    sent_at = 0.0
    _slot: Slot | None = None
    _facts: Any = None

    def collect_jobs(self, slot: Slot, facts: Any) -> None:
        """Collect the events of jobs in a slot from now on; `facts` have the worker's clock."""
        self._slot, self._facts = slot, facts

    def send(self, type: str, **fields: Any) -> Any:  # type: ignore[override]  # noqa: A002 - Celery's
        """Send an event, or collect it."""
        if self._slot and group_from(type) == _GROUP:
            if sends_events(self):
                self.collect(type, {**self.about(), **fields})
            return None
        return super().send(type, **fields)

    def about(self) -> dict[str, Any]:
        """Return what all events say."""
        return {"hostname": self.hostname, "utcoffset": utcoffset(), "pid": self.pid}

    def collect(self, kind: str, event: dict[str, Any]) -> None:
        """Collect a job's event, or send it if there is no room."""
        # One clock for all processes, by which monitors order events.
        self.clock.value = self._facts.clock = max(self.clock.value, self._facts.clock) + 1
        event |= {"type": kind, "clock": self.clock.value, "timestamp": time()}
        text = fastjson.encode(event) or dumps(event).encode()
        if not self._keep(text):
            self.send_collected()
            if not self._keep(text):  # it is too large, or the server is unreachable
                with self.mutex:
                    self._publish(event, self.producer, kind.replace("-", "."))

    def _keep(self, text: bytes) -> bool:
        with self.mutex:
            return bool(self._slot and self._slot.add_event(text))

    def send_collected(self) -> None:
        """Send what is collected, now or, if the server is unreachable, later."""
        self.sent_at = monotonic()
        if self._slot and not self.mutex.locked():  # or a signal interrupts it
            with self.mutex:
                self.send_all_of(self._slot)
            if self._outbound_buffer:  # what could not be sent by itself
                self.flush(groups=False)

    def send_all_of(self, slot: Slot) -> None:
        """Send the events that are collected in a slot, unless the server is unreachable."""
        if not (self.producer and (events := slot.events)):
            return
        with suppress(OSError, RedisError, OperationalError):
            self.producer.publish(
                events,
                routing_key=f"{_GROUP}.multi",
                exchange=self.exchange.name,
                declare=[self.exchange],
                headers=self.headers,
                delivery_mode=self.delivery_mode,
                content_type="application/json",
                content_encoding="utf-8",
            )
            slot.drop_events()


def sends_events(dispatcher: Any) -> bool:
    """Return True if a worker's event dispatcher sends the events of jobs."""
    return bool(
        dispatcher and dispatcher.enabled and (not dispatcher.groups or _GROUP in dispatcher.groups)
    )


class JobEvents:
    """The events of the jobs of a fetch, which a process' dispatcher collects."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._collect = dispatcher.collect
        self._about = dispatcher.about()

    def _send(self, kind: str, **fields: Any) -> None:
        self._collect(kind, {**self._about, **fields})

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
            error = safe_repr(raised(traced.retval).exc)
            text = safe_str(traced.retval.traceback)
            self._send("task-retried", uuid=job_id, exception=error, traceback=text)
        elif info.state == FAILURE:
            self._failed(job_id, traced.retval)

    def rejected(self, job_id: str, info: ExceptionInfo, *, requeue: bool) -> None:
        """Send that a job rejected its message."""
        if not requeue:
            self._failed(job_id, info)
        self._send("task-rejected", uuid=job_id, requeue=requeue)

    def _failed(self, job_id: str, info: ExceptionInfo) -> None:
        error = safe_repr(get_pickled_exception(raised(info)))
        self._send("task-failed", uuid=job_id, exception=error, traceback=info.traceback)
