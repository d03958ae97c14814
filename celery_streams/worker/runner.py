"""Runs jobs in the process that fetched them, past kombu's messages and Celery's requests.

Jobs run by Celery's own tracer, so arguments, request, signals, retries and errors are Celery's.
Their results and acks are written together, with the next fetch. A job that needs Celery's request
is delivered to Celery.
"""

import logging
from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Literal, Protocol

import msgspec
from billiard.einfo import ExceptionInfo
from celery import signals
from celery.app import trace
from celery.app.task import Context
from celery.exceptions import Reject
from celery.states import FAILURE, IGNORED, RETRY
from celery.utils.log import get_logger
from celery.worker import state, strategy

from celery_streams.fastjson import MARK
from celery_streams.results.backend import RedisBackend
from celery_streams.transport.channel import Channel
from celery_streams.transport.entries import Entry
from celery_streams.transport.validation import MAX_DEPTH, MAX_NAME, MAX_REPR, MAX_RETRIES, is_deep
from celery_streams.worker import request as requests
from celery_streams.worker.events import JobEvents, sends_events
from celery_streams.worker.scoreboard import Slot

logger = get_logger(__name__)

#: Target for the seconds that the jobs of one fetch take together.
FETCH_SECONDS = 0.01
#: Seconds of a job above which a fetch brings one job.
QUICK_SECONDS = 0.001
#: Seconds of a job after which results are stored before each of the next jobs of its task, and
#: how many of these: one long job may be an exception.
SLOW_SECONDS, NEXT_JOBS = 0.02, 20
#: Seconds after which the rest of a fetch is released to other processes.
MAX_FETCH_SECONDS = 0.1
#: Jobs of one fetch.
MAX_FETCH = 256


class _Consumer(Protocol):
    """The part of `worker.consumer.Consumer` that is used here."""

    app: Any
    controller: Any
    disable_rate_limits: Any
    event_dispatcher: Any
    hostname: str
    task_buckets: Any

    def fail(self, request: Context, failure: Exception) -> None: ...


class _Envelope(msgspec.Struct):
    """A message whose body is plain JSON in base64; no other can be decoded."""

    body: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    content_type: Literal["application/json"] = msgspec.field(name="content-type")
    content_encoding: Literal["utf-8"] = msgspec.field(name="content-encoding")


class _Embedded(msgspec.Struct, forbid_unknown_fields=True):
    """The third part of a body, accepted only if it is empty: no callbacks, chain or chord."""

    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


_envelope = msgspec.json.Decoder(_Envelope).decode
_call = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], _Embedded]).decode
_NO_LIMITS = (None, [None, None])
#: The states of jobs whose messages are acked; those of others are rejected.
_ACKED = frozenset({FAILURE, IGNORED, RETRY})
_PRIORITIES = (None, *range(10))


class _Task:
    """A task, what becomes of its messages, and its time limits in seconds."""

    def __init__(self, task: Any, limits: tuple[float | None, float | None]) -> None:
        self.name = task.name
        self.trace = task.__trace__
        self.soft = float(task.soft_time_limit or limits[0] or 0)
        self.hard = float(task.time_limit or limits[1] or 0)
        self.is_limited = bool(self.soft or self.hard)
        self.sends_events = bool(task.send_events)
        #: For how many of its jobs the results before are stored first: one has taken long.
        self.is_slow_for = 0


class Runner:
    """Runs the jobs that a channel fetched.

    `limits` are the soft and the hard time limit of tasks without others, in seconds.
    """

    def __init__(
        self,
        consumer: _Consumer,
        channel: Channel,
        slot: Slot,
        limits: tuple[float | None, float | None],
    ) -> None:
        self._consumer = consumer
        self._limits = limits
        self._channel = channel
        self._slot = slot
        self._deliveries, self._dispatch = channel.deliveries, channel.dispatch
        self._clock = channel.maintenance.clock
        backend = consumer.app.backend
        self._backend: RedisBackend | None = backend if isinstance(backend, RedisBackend) else None
        self._revoked = consumer.controller.state.revoked
        self._logs_info = strategy.logger.isEnabledFor(logging.INFO)
        #: How many jobs to fetch at once.
        self.limit = 1
        self._began = 0.0
        self._tasks: dict[str, _Task] = {}
        self._runs = False
        self._events: JobEvents | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the tasks and their limits: remote control may change them."""
        consumer = self._consumer
        self._tasks = {}
        if self._is_possible():
            self._tasks = {
                name: _Task(task, self._limits)
                for name, task in consumer.app.tasks.items()
                if task.acks_late
                and task.acks_on_failure
                and task.Request == requests.NAME
                and (consumer.disable_rate_limits or not consumer.task_buckets[name])
            }

    def _is_possible(self) -> bool:
        """Return True if results can be stored by the command that acks."""
        backend = self._backend
        return (
            backend is not None
            and backend.stores_json
            and _server(backend.connparams) == _server(self._channel.connection_parameters)
        )

    # The jobs of a fetch -------------------------------------------------------------

    def begin(self, entries: Sequence[Entry]) -> None:
        """Begin with a fetch."""
        self._slot.fetched([entry.tag for entry in entries])
        self._began = monotonic()
        self._runs = not signals.task_received.receivers and not state.revoked_stamps
        dispatcher = self._consumer.event_dispatcher
        self._events = JobEvents(dispatcher) if sends_events(dispatcher) else None

    def claim(self, position: int) -> bool:
        """Begin with a job of the fetch; False if other processes should take the rest."""
        if position and monotonic() - self._began > MAX_FETCH_SECONDS:
            return False
        return self._slot.claim(position)

    def ended(self) -> None:
        """Note that the job has ended."""
        self._slot.ended()

    def end(self, count: int, *, is_all: bool) -> None:
        """End with a fetch of `count` jobs, and set the limit of the next one."""
        self._slot.count(state.total_count)
        seconds = monotonic() - self._began
        if not is_all or seconds > QUICK_SECONDS * count:
            self.limit = 1
        elif seconds > 2 * FETCH_SECONDS:
            self.limit = max(self.limit // 2, 1)
        elif count >= self.limit and seconds < FETCH_SECONDS:
            self.limit = min(2 * self.limit, MAX_FETCH)

    # One job -------------------------------------------------------------------------

    def run(self, entry: Entry) -> bool:
        """Run the job of a message; return False if it has to be delivered to Celery.

        What would end a pool's process is raised.
        """
        found = self._read(entry) if self._runs else None
        if found is None or self._backend is None:
            self._store_results()
            self._slot.keep(entry.message)
            return False
        task, request, args, kwargs = found
        if task.is_slow_for:
            task.is_slow_for -= 1
            self._store_results()
        job_id = request["id"]
        state.total_count[task.name] += 1
        state.all_total_count[0] += 1
        if self._logs_info:
            _log_received(request, args, kwargs)
        self._backend.capture(job_id)
        events = self._events if task.sends_events else None
        if events:
            events.begun(request)
        if task.is_limited:
            self._slot.set_limits(task.soft, task.hard)
        try:
            traced = self._traced(task, args, kwargs, request)
        except Reject:  # of a hook, after the result
            self._slot.set_limits(0, 0)
            self._backend.captured()
            self._reject(entry, request, ExceptionInfo(), events)
            return True
        except MemoryError as error:
            self._slot.set_limits(0, 0)
            result = self._backend.captured()
            if result is None:
                self._consumer.fail(Context(request), requests.out_of_memory(error))
            self._deliveries.ack_later(entry.tag, result)
            return True
        if task.is_limited:
            self._slot.set_limits(0, 0)
        self._end(entry, request, traced, events)
        return True

    def _store_results(self) -> None:
        """Store the results of the jobs before; the next one may let no signal interrupt it."""
        if any(ack.result for ack in self._deliveries.pending_acks):
            self.flush()

    def flush(self) -> None:
        """Send the acks and results of the jobs before, once these are counted."""
        self._slot.count(state.total_count)
        self._deliveries.flush()

    def _traced(self, task: _Task, args: Any, kwargs: Any, request: dict[str, Any]) -> Any:
        try:
            return task.trace(request["id"], args, kwargs, request)
        finally:
            self._slot.check()
            if monotonic() - self._slot.fields.started > SLOW_SECONDS:
                task.is_slow_for = NEXT_JOBS

    def _end(
        self, entry: Entry, request: dict[str, Any], traced: Any, events: JobEvents | None
    ) -> None:
        result = self._backend.captured() if self._backend else None
        if traced.info is None or traced.info.state in _ACKED:
            self._deliveries.ack_later(entry.tag, result)
            if events:
                events.ended(request["id"], traced)
        else:
            self._reject(entry, request, traced.retval, events)

    def _reject(
        self, entry: Entry, request: dict[str, Any], info: ExceptionInfo, events: JobEvents | None
    ) -> None:
        """End a job that rejected its message, as Celery's request does."""
        error = requests.raised(info)
        if error.requeue:
            self._deliveries.requeue_entry(entry)
        else:  # it never runs again
            self._consumer.fail(Context(request), error)
            signals.task_failure.send(
                sender=self._consumer.app.tasks[request["task"]],
                task_id=request["id"],
                exception=error,
                args=request["args"],
                kwargs=request["kwargs"],
                traceback=info.traceback,
                einfo=info,
            )
            self._deliveries.dead_letter(entry.tag, "rejected by the worker")
        if events:
            events.rejected(request["id"], info, requeue=error.requeue)

    def _read(self, entry: Entry) -> tuple[_Task, dict[str, Any], list[Any], dict[str, Any]] | None:
        """Return the task, the tracer's request and the arguments of a job; None if not covered."""
        is_first = entry.deliveries is None  # or it may have run before
        if not is_first or len(entry.message) > self._channel.max_message_bytes:
            return None
        if not self._dispatch.never_expires(entry.tag):
            return None
        try:
            envelope = _envelope(entry.message)
            headers, properties = envelope.headers, envelope.properties
            task = self._tasks.get(headers["task"])
            if task is None or not _is_covered(headers, properties):
                return None
            if headers["id"] in self._revoked:
                return None
            if (eta := headers.get("eta")) is not None and not self._clock.has_reached(eta):
                return None
            body = a2b_base64(envelope.body)
            if MARK in body:
                return None
            args, kwargs, _ = _call(body)
            if body.count(b"[") + body.count(b"{") > MAX_DEPTH and is_deep([args, kwargs]):
                return None
            delivery_info: Mapping[str, Any] = properties["delivery_info"]
            headers |= {
                "args": args,
                "kwargs": kwargs,
                "is_eager": False,
                "callbacks": None,
                "errbacks": None,
                "chain": None,
                "chord": None,
                "properties": properties,
                "reply_to": properties.get("reply_to"),
                "correlation_id": properties.get("correlation_id"),
                "hostname": self._consumer.hostname,
                "delivery_info": {
                    "exchange": delivery_info.get("exchange"),
                    "routing_key": delivery_info.get("routing_key"),
                    "priority": properties.get("priority"),
                    "redelivered": delivery_info.get("redelivered", False),
                },
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # `messages.check_message` raises the reason
        return task, headers, args, kwargs


def _is_covered(headers: dict[str, Any], properties: dict[str, Any]) -> bool:
    job_id, group, get = headers["id"], headers.get("group"), headers.get
    return (
        type(job_id) is str
        and 0 < len(job_id) <= MAX_NAME
        and job_id.isascii()
        and get("expires") is None
        and not get("compression")
        and get("timelimit") in _NO_LIMITS
        and _is_short_name(group)
        and _is_short_name(get("parent_id"))
        and _is_short_name(get("root_id"))
        and not get("stamped_headers")
        and not get("stamps")
        and type(retries := get("retries", 0)) is int
        and 0 <= retries <= MAX_RETRIES
        and properties.get("priority") in _PRIORITIES
        and properties.get("expiration") is None
        and get("shadow") is None
        and "_children" not in headers
        and "_protected" not in headers
        and _is_short_text(get("argsrepr"))
        and _is_short_text(get("kwargsrepr"))
        and _is_short_name(properties.get("reply_to"))
        and properties["body_encoding"] == "base64"
        and "delivery_tag" in properties
    )


def _is_short_name(value: Any) -> bool:
    return value is None or (type(value) is str and len(value) <= MAX_NAME and value.isascii())


def _is_short_text(value: Any) -> bool:
    return value is None or (type(value) is str and len(value) <= MAX_REPR)


def _server(parameters: Mapping[str, Any]) -> list[Any]:
    """Return what identifies a server and a database."""
    names = ("host", "port", "path", "db")
    values = [str(parameters.get(name) or "") for name in names]
    return ["127.0.0.1" if each == "localhost" else each for each in values]


def _log_received(request: dict[str, Any], args: Any, kwargs: Any) -> None:
    """Log a received job, as Celery does."""
    context = {
        "id": request["id"],
        "name": request.get("shadow") or request["task"],
        "args": request.get("argsrepr") or args,
        "kwargs": request.get("kwargsrepr") or kwargs,
        "eta": None,
    }
    strategy.logger.info(trace.LOG_RECEIVED, context, extra={"data": context})
