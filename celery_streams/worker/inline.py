"""Inline tasks: run in the worker's main process, a whole fetch at a time, bypassing the pool.

A task is marked by `inline = True`. Its jobs run by Celery's own tracer, so arguments, request,
signals, retries and errors are Celery's. They get no message object, no worker request and no pool
process, and their results and acks are written together. A job that needs one of these is
delivered to Celery.
"""

import logging
import threading
from binascii import a2b_base64
from collections.abc import Mapping
from time import monotonic
from typing import Any, Literal, Protocol

import msgspec
from celery import signals
from celery.app import trace
from celery.app.task import Context
from celery.states import REJECTED
from celery.utils.log import get_logger
from celery.worker import state, strategy

from celery_streams.fastjson import MARK
from celery_streams.results.backend import RedisBackend
from celery_streams.transport.channel import Channel
from celery_streams.transport.queues import Entry, Result
from celery_streams.transport.validation import MAX_DEPTH, MAX_NAME, MAX_REPR, MAX_RETRIES
from celery_streams.worker.time_limits import CHECK_INTERVAL, TimeLimits

logger = get_logger(__name__)

#: Target for the seconds that the jobs of one fetch take together.
FETCH_SECONDS = 0.01
#: Seconds after which the rest of a fetch is released to other workers.
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

    @property
    def time_limits(self) -> TimeLimits: ...

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
_PRIORITIES = (None, *range(10))


class _Task:
    """An inline task, and its time limits in seconds."""

    def __init__(self, task: Any, conf: Any) -> None:
        self.name = task.name
        self.trace = task.__trace__
        self.soft = task.soft_time_limit or conf.task_soft_time_limit
        self.hard = task.time_limit or conf.task_time_limit


class Inline:
    """Runs the jobs of inline tasks that a channel fetched."""

    def __init__(self, consumer: _Consumer, channel: Channel) -> None:
        self._consumer = consumer
        self._channel = channel
        self._deliveries, self._dispatch = channel.deliveries, channel.dispatch
        self._clock = channel.maintenance.clock
        backend = consumer.app.backend
        self._backend: RedisBackend | None = backend if isinstance(backend, RedisBackend) else None
        self._revoked = consumer.controller.state.revoked
        self._logs_info = strategy.logger.isEnabledFor(logging.INFO)
        #: How many jobs to fetch at once if the pool has room for one; 0 for the prefetch limit.
        self.limit = 0
        self._began = 0.0
        #: Jobs of this fetch that ran inline.
        self._ran = 0
        self._limits = consumer.time_limits
        self.refresh()

    def refresh(self) -> None:
        """Read which tasks are inline, and their limits: remote control may change them."""
        self._tasks = self._inline_tasks() if self._is_possible() else {}
        self._least = min(
            (task.soft for task in self._tasks.values() if task.soft), default=CHECK_INTERVAL
        )

    def runs(self, task: str) -> bool:
        """Return True if jobs of a task run inline."""
        return task in self._tasks

    def _inline_tasks(self) -> dict[str, "_Task"]:
        consumer = self._consumer
        return {
            name: _Task(task, consumer.app.conf)
            for name, task in consumer.app.tasks.items()
            if _is_inline(task)
            and (consumer.disable_rate_limits or not consumer.task_buckets[name])
        }

    def _is_possible(self) -> bool:
        """Return True if results can be stored by the command that acks."""
        backend = self._backend
        return (
            threading.current_thread() is threading.main_thread()
            and backend is not None
            and backend.stores_json
            and _server(backend.connparams) == _server(self._channel.connection_parameters)
        )

    # The jobs of a fetch -------------------------------------------------------------

    def begin(self) -> bool:
        """Begin with a fetch; return True if its jobs may run inline: no event or signal is due."""
        self._began, self._ran = monotonic(), 0
        may = bool(
            self._tasks
            and not self._sends_events()
            and not signals.task_received.receivers
            and not state.revoked_stamps
        )
        if may:
            self._limits.arm(self._least)
        return may

    def _sends_events(self) -> bool:
        """Return True if events of jobs are sent; events of workers do not matter here."""
        events = self._consumer.event_dispatcher
        return bool(events and events.enabled and (not events.groups or "task" in events.groups))

    @property
    def is_over(self) -> bool:
        """Whether the jobs of this fetch took so long that other workers should help."""
        return monotonic() - self._began > MAX_FETCH_SECONDS

    def end(self, fetched: int, *, is_all: bool) -> None:
        """End with a fetch, and set the limit of the next one."""
        self._limits.disarm()
        seconds = monotonic() - self._began
        if not is_all or seconds > 2 * FETCH_SECONDS:
            self.limit = min(self.limit, fetched) // 2
        elif self._ran == fetched >= self.limit and seconds < FETCH_SECONDS:
            self.limit = min(2 * max(self.limit, fetched), MAX_FETCH)

    # One job -------------------------------------------------------------------------

    def run(self, entry: Entry) -> bool:
        """Run the job of a message; return False if it has to be delivered to Celery."""
        if entry.deliveries is not None:  # it may have run before
            return False
        if not self._dispatch.never_expires(entry.tag):
            return False
        if len(entry.message) > self._channel.max_message_bytes:
            return False
        found = self._read(entry.message)
        if found is None or self._backend is None:
            return False
        task, request, args, kwargs = found
        job_id = request["id"]
        if job_id in self._revoked:
            return False
        self._ran += 1
        state.total_count[task.name] += 1
        state.all_total_count[0] += 1
        if self._logs_info:
            _log_received(request, args, kwargs)
        self._backend.capture(job_id)
        self._limits.begin(job_id, task.soft, task.hard)
        try:
            traced = task.trace(job_id, args, kwargs, request)
        except BaseException as error:  # noqa: BLE001 - it would end a pool process
            logger.critical("job %s would have ended its process: %r", job_id, error)
            self._deliveries.requeue_entry(entry)
        else:
            self._end(entry, request, traced.info, self._backend.captured())
        finally:
            self._limits.end()
        return True

    def _end(self, entry: Entry, request: dict[str, Any], info: Any, result: Result | None) -> None:
        if info is None or info.state != REJECTED:
            self._deliveries.ack_later(entry.tag, result)
        elif info.retval.requeue:
            self._deliveries.requeue_entry(entry)
        else:  # it never runs again
            self._consumer.fail(Context(request), info.retval)
            self._deliveries.dead_letter(entry.tag, "rejected by the worker")

    def _read(self, raw: bytes) -> tuple[_Task, dict[str, Any], list[Any], dict[str, Any]] | None:
        """Return the task, the tracer's request and the arguments of a job; None if not covered."""
        try:
            envelope = _envelope(raw)
            headers, properties = envelope.headers, envelope.properties
            task = self._tasks.get(headers["task"])
            if task is None or not _is_covered(headers, properties):
                return None
            if (eta := headers.get("eta")) is not None and not self._clock.has_reached(eta):
                return None
            body = a2b_base64(envelope.body)
            if MARK in body or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
                return None
            args, kwargs, _ = _call(body)
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


def _is_inline(task: Any) -> bool:
    """Return True for a marked task whose jobs are always acked late."""
    return bool(
        getattr(task, "inline", False)
        and task.acks_late
        and task.acks_on_failure
        and task.acks_on_timeout
    )


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
