"""Runs bundles (`celery_streams.bundles`): calls of a task one after another, under one request.

A call costs no more than the function and its time limits. Whatever is unusual about one is done as
for a job, under the id that the call has as a job.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from celery import _state, signals
from celery.app.task import Context, Task
from celery.app.trace import TraceInfo
from celery.exceptions import Ignore, NotRegistered, Reject, Retry
from celery.states import FAILURE, RETRY
from celery.worker import state

from celery_streams import fastjson
from celery_streams.bundles import call_id
from celery_streams.producer import starmap
from celery_streams.results.payloads import is_portable
from celery_streams.worker import request, scoreboard

#: Seconds after which the calls that are left become jobs.
MAX_SECONDS = 0.1
#: Bytes of the values' JSON at most, and of a number's, roughly.
MAX_BYTES, SCALAR_BYTES = 512 * 1024, 20
#: Signals of each job; with a receiver, each call is a job.
_SIGNALS = (signals.task_prerun, signals.task_postrun, signals.task_success)
#: What a task class may do before and after each job.
_HOOKS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")
#: Fields of a call's request that differ from those of its bundle's request.
_OF_CALL: dict[str, Any] = {
    "kwargs": {},
    "parent_id": None,
    "argsrepr": None,
    "kwargsrepr": None,
    "running": True,
}
_celery: Any = _state
#: The bundle that this process runs, if any.
_running: list["Bundle"] = []


def run(job: Any, rows: Sequence[Sequence[Any]], name: str) -> Any:
    """Make the calls of a bundle, the job of the task `job`, and return their outcome."""
    task = job.app.tasks.get(name)
    if task is None:
        raise NotRegistered(name)
    bundle = Bundle(job, task, rows)
    if not is_plain(task) or job.request.get("x-delivery-count"):  # it has ended its process
        bundle.hand_over(range(len(rows)))
        return bundle.outcome()
    _running.append(bundle)
    try:
        bundle.run()
    finally:
        _running.remove(bundle)
    return bundle.outcome()


def hand_over() -> None:
    """Make jobs of the calls behind the present one, for it takes long; by a signal handler."""
    for bundle in _running:
        with suppress(Exception):  # the present call must not get the error
            bundle.hand_over_rest()


def is_plain(task: Any) -> bool:
    """Return True if nothing but its function and its limits belongs to a call of a task."""
    kind = type(task)
    own = (*getattr(kind, "plain_calls", ()), *(getattr(Task, hook) for hook in _HOOKS))
    return (
        starmap.is_plain(task)
        and all(getattr(kind, hook) in own for hook in _HOOKS)
        and bool(task.acks_late and task.acks_on_failure)
        and task.Request == request.NAME
        and not task.rate_limit
        and not any(signal.receivers for signal in _SIGNALS)
    )


class Bundle:
    """The calls of one bundle."""

    def __init__(self, job: Any, task: Any, rows: Sequence[Any]) -> None:
        self._app, self._task = job.app, task
        self._rows = rows
        self._id = str(job.request.id)
        self._request: Any = Context(job.request.__dict__, **_OF_CALL, task=task.name)
        self._queue = job.request.delivery_info["routing_key"]
        self._slot = slot = scoreboard.current
        # Without limits of the task, those of all jobs, which the bundle has.
        self._soft = float(task.soft_time_limit or (slot.fields.soft if slot else 0))
        self._hard = float(task.time_limit or (slot.fields.hard if slot else 0))
        #: The position of the present call, and of the first one that is not made here.
        self._position, self._end = 0, len(rows)
        self._values: list[Any] = []
        #: Positions of calls that are jobs of their own.
        self._own: list[int] = []
        self._seconds = 0.0
        #: Bytes of the values' JSON, roughly.
        self._bytes = 0
        # Before a signal handler needs it.
        self._app.submission.learn(task.name, {}, is_worker=True)

    def run(self) -> None:
        """Make the calls, until it takes too long."""
        began = monotonic()
        _celery._task_stack.push(self._task)  # noqa: SLF001 - as Celery's Task.__call__
        self._task.request_stack.push(self._request)
        process = os.getpid()
        try:
            while self._position < self._end:
                self._set_call(self._position)
                self._values.append(self._call())
                if os.getpid() != process:  # it has forked, and this is the copy
                    os._exit(0)
                if monotonic() - began > MAX_SECONDS:
                    self.hand_over_rest()
                self._position += 1
        finally:
            self._task.request_stack.pop()
            _celery._task_stack.pop()  # noqa: SLF001 - the same
        self._seconds = monotonic() - began
        count = len(self._values)
        state.total_count[self._task.name] += count

    def _set_call(self, position: int) -> None:
        """Have the request be that of a call."""
        present = self._request
        present.id = present.root_id = call_id(self._id, position)
        present.args = tuple(self._rows[position])
        present._children = None  # noqa: SLF001 - the jobs that it sends

    def _call(self) -> Any:
        slot = self._slot
        try:
            if slot:
                slot.begin_call(self._soft, self._hard)
            try:
                value = self._task.run(*self._request.args)
            except MemoryError as error:
                raise request.out_of_memory(error) from None
            finally:
                if slot:
                    slot.set_limits(0, 0)
                    slot.check()
        except Ignore:
            self._own.append(self._position)
        except Reject:
            self.hand_over([self._position])
        except Exception as error:  # noqa: BLE001 - it is the call's
            self._own.append(self._position)
            self._store_failure(error)
        else:
            return self._plain(value)
        return None

    def _plain(self, value: Any) -> Any:
        """Return a value as the outcome has it: the task may change it in later calls."""
        if is_portable(value) and self._bytes < MAX_BYTES:
            self._bytes += len(value) if type(value) is str else SCALAR_BYTES
            return value
        text = fastjson.encode(value)
        if text is None or self._bytes + len(text) > MAX_BYTES:
            self._store(value)
            return None
        self._bytes += len(text)
        return fastjson.decode(text)

    # Calls that become jobs ------------------------------------------------------------

    def hand_over_rest(self) -> None:
        """Make jobs of the calls behind the present one."""
        end, self._end = self._end, self._position + 1  # first: a signal may call it meanwhile
        rest = range(self._end, end)
        if self._sent_at_once(rest):
            self._own += rest
        else:
            self._end = end

    def hand_over(self, positions: Sequence[int]) -> None:
        """Make jobs of calls; one that cannot be sent fails."""
        self._own += positions
        if self._sent_at_once(positions):
            return
        for position in positions:
            self._set_call(position)
            try:
                self._app.send_task(
                    self._task.name,
                    self._rows[position],
                    queue=self._queue,
                    task_id=self._request.id,
                    root_id=self._request.id,
                    reply_to=self._request.reply_to,
                    add_to_parent=False,
                )
            except Exception as error:  # noqa: BLE001 - the other calls go on
                self._store_failure(error)

    def _sent_at_once(self, positions: Sequence[int]) -> bool:
        """Make jobs of calls by one command, if they are plain and the server answers."""
        jobs = {call_id(self._id, position): self._rows[position] for position in positions}
        submission, name = self._app.submission, self._task.name
        return bool(submission.send_at_once(name, jobs, reply_to=self._request.reply_to))

    # The outcome -----------------------------------------------------------------------

    def _store(self, value: Any) -> None:
        """Store the present call's value, which JSON cannot hold plainly, as a job's result."""
        self._own.append(self._position)
        task = self._task
        try:
            encode = getattr(task, "encode_result", None)
            encoded = encode(value) if encode else value
            task.backend.mark_as_done(self._request.id, encoded, self._request)
        except Exception as error:  # noqa: BLE001 - as Celery's tracer
            self._store_failure(error)

    def _store_failure(self, error: Exception) -> None:
        """Store that the present call has failed, or is retried; in the error's handler."""
        info = TraceInfo(RETRY if isinstance(error, Retry) else FAILURE, error)
        info.handle_error_state(self._task, self._request)

    def outcome(self) -> Mapping[str, Any]:
        """Return the outcome, as plain JSON."""
        return {"values": self._values, "own": sorted({*self._own}), "seconds": self._seconds}
