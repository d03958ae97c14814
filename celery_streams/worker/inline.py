"""Jobs that a worker runs where it fetches them: without a pool, many between two commands.

A task says of itself that it is quick: `inline = True`. What Celery's tracer does with a job,
it does with these: arguments, request, hooks, signals, retries and errors are its own. What is
left out is what stands around it in a worker: a message object, a request, a process of the pool, a
write a result and an acknowledgement a job. Whatever has need of one of these takes the long way.
"""

import logging
import threading
from binascii import a2b_base64
from collections.abc import Mapping
from time import monotonic
from typing import Any, Literal

import msgspec
from celery import signals
from celery.app import trace
from celery.app.task import Context
from celery.states import REJECTED
from celery.utils.log import get_logger
from celery.worker import state, strategy

from celery_streams.fastjson import MARK
from celery_streams.results.backend import RedisBackend
from celery_streams.transport.queues import Ack, Entry
from celery_streams.transport.validation import MAX_DEPTH, MAX_NAME, MAX_REPR, MAX_RETRIES
from celery_streams.worker.time_limits import INTERVAL, TimeLimits

logger = get_logger(__name__)

#: Seconds that the jobs of one fetch are to take together, about: others wait for them.
TURN = 0.01
#: Seconds after which the rest of a fetch is left to other workers.
LONGEST_TURN = 0.1
#: Most jobs of one fetch.
MOST = 256


class _Envelope(msgspec.Struct):
    """A message of a task whose body is plain JSON; any other is none."""

    body: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    content_type: Literal["application/json"] = msgspec.field(name="content-type")
    content_encoding: Literal["utf-8"] = msgspec.field(name="content-encoding")


class _Embedded(msgspec.Struct, forbid_unknown_fields=True):
    """What is to follow a job: nothing."""

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
    """Runs what a channel fetched for a consumer, as far as it is quick."""

    def __init__(self, consumer: Any, channel: Any) -> None:
        self._consumer = consumer
        self._channel = channel
        self._backend: Any = consumer.app.backend
        self._revoked = consumer.controller.state.revoked
        self._does_info = strategy.logger.isEnabledFor(logging.INFO)
        #: How many jobs are to be fetched at once, if the pool has room for one; 0 for as many as
        #: it has room for.
        self.most = 0
        self._began = 0.0
        #: Jobs of this fetch that were run here.
        self._ran = 0
        self._limits: TimeLimits = consumer.time_limits
        self.refresh()

    def refresh(self) -> None:
        """Find out which tasks are inline, and their limits: remote control may change them."""
        self._tasks = self._inline_tasks() if self._is_possible() else {}
        self._least = min(
            (task.soft for task in self._tasks.values() if task.soft), default=INTERVAL
        )

    def runs(self, task: str) -> bool:
        """Tell whether jobs of a task may be run here."""
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
        """Tell whether results can be stored by the very command that acknowledges."""
        backend = self._backend
        return (
            threading.current_thread() is threading.main_thread()
            and isinstance(backend, RedisBackend)
            and backend.stores_json
            and _server(backend.connparams) == _server(self._channel.connection_parameters)
        )

    # The jobs of a fetch -------------------------------------------------------------

    def begin(self) -> bool:
        """Begin with the jobs of a fetch; tell whether any may be run here, unseen by others."""
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
        """Tell whether events of jobs are sent; those of workers may be at any time."""
        events = self._consumer.event_dispatcher
        return bool(events and events.enabled and (not events.groups or "task" in events.groups))

    @property
    def is_over(self) -> bool:
        """Tell whether the jobs of this fetch have taken so long that others have to help."""
        return monotonic() - self._began > LONGEST_TURN

    def end(self, fetched: int, *, is_all: bool) -> None:
        """End with the jobs of a fetch, and decide how many the next one is to bring."""
        self._limits.disarm()
        seconds = monotonic() - self._began
        if not is_all or seconds > 2 * TURN:
            self.most = min(self.most, fetched) // 2
        elif self._ran == fetched >= self.most and seconds < TURN:
            self.most = min(2 * max(self.most, fetched), MOST)

    # One job -------------------------------------------------------------------------

    def run(self, entry: Entry) -> bool:
        """Run the job of a message to its end; or tell that this is not done here."""
        if entry.deliveries is not None:  # it may have been done before
            return False
        if not self._channel.lives_for_ever(entry.tag):  # it may be too old
            return False
        if len(entry.message) > self._channel.max_message_bytes:
            return False
        found = self._read(entry.message)
        if found is None:
            return False
        task, request, args, kwargs = found
        job_id = request["id"]
        if job_id in self._revoked:
            return False
        self._ran += 1
        state.total_count[task.name] += 1
        state.all_total_count[0] += 1
        if self._does_info:
            _log_received(request, args, kwargs)
        self._backend.keep(job_id)
        self._limits.begin(job_id, task.soft, task.hard)
        try:
            traced = task.trace(job_id, args, kwargs, request)
        except BaseException as error:  # noqa: BLE001 - in a pool, it ends the process
            logger.critical("job %s would have ended its process: %r", job_id, error)
            self._channel.give_back(entry, requeue=True)
        else:
            self._end(entry, request, traced.info)
        finally:
            self._limits.end()
        return True

    def _end(self, entry: Entry, request: dict[str, Any], info: Any) -> None:
        result = self._backend.kept()
        if info is not None and info.state == REJECTED:
            if not info.retval.requeue:  # it never runs again: its caller is told, as by a pool
                self._consumer.fail(Context(request), info.retval)
            self._channel.give_back(entry, requeue=info.retval.requeue)
        else:
            self._channel.qos.ended.append(Ack(entry.tag, result))

    def _read(self, raw: bytes) -> tuple[_Task, dict[str, Any], list[Any], dict[str, Any]] | None:
        """Return a job's task, its request as Celery's tracer knows it, and its arguments."""
        try:
            envelope = _envelope(raw)
            headers, properties = envelope.headers, envelope.properties
            task = self._tasks.get(headers["task"])
            if task is None or not _is_covered(headers, properties):
                return None
            if (eta := headers.get("eta")) is not None and not self._channel.is_due(eta):
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
            return None  # whoever looks closer says what is wrong
        return task, headers, args, kwargs


def _is_inline(task: Any) -> bool:
    """Return True for an inline task; one that is not acknowledged late, always, is not inline."""
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
    """Return what tells one server, and one of its databases, from another."""
    names = ("host", "port", "path", "db")
    said = [str(parameters.get(name) or "") for name in names]
    return ["127.0.0.1" if each == "localhost" else each for each in said]


def _log_received(request: dict[str, Any], args: Any, kwargs: Any) -> None:
    """Log that a job was received, as Celery does."""
    context = {
        "id": request["id"],
        "name": request.get("shadow") or request["task"],
        "args": request.get("argsrepr") or args,
        "kwargs": request.get("kwargsrepr") or kwargs,
        "eta": None,
    }
    strategy.logger.info(trace.LOG_RECEIVED, context, extra={"data": context})
