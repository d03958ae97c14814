"""Waiting for results: woken by notices, and never dependent on one.

A worker announces a result on the channel of the thread that sent the job, which subscribes once.
Each waiting thread also reads its jobs' keys: once a second and at its deadline, and more often
for jobs that are announced elsewhere. A notice holds one result or several.
"""

import logging
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import Any, Protocol

from celery.backends.asynchronous import BaseResultConsumer
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.states import FAILURE, PROPAGATE_STATES, READY_STATES, SUCCESS
from redis.exceptions import AuthenticationError, ResponseError

from celery_streams.results.buffer import ResultBuffer
from celery_streams.results.connections import ResultConnections
from celery_streams.results.listener import Listener
from celery_streams.results.waiters import MAX_POLL, MIN_POLL, BatchWaiter, ResultWaiter, batch_of
from celery_streams.retries import is_state_of_server

logger = logging.getLogger(__name__)

#: Seconds between reads of the key of a job that is announced here.
INTERVAL = 1.0
#: Size limit of the buffer of results that arrive before anyone asks for them.
RESULT_BUFFER_BYTES = 16 * 1024 * 1024


class _Backend(Protocol):
    """The part of `RedisBackend` that is used here."""

    client: Any
    connection_errors: tuple[type[Exception], ...]

    def channel_of(self, oid: str) -> bytes: ...
    def get_key_for_task(self, task_id: str) -> bytes: ...
    def job_of(self, notice: Any) -> str | None: ...
    def metas(self, notice: Any) -> list[Any]: ...
    def meta_of(self, job_id: str, payload: Any) -> Any: ...
    def _remove_pending_result(self, result: Any) -> object: ...


class ResultConsumer(BaseResultConsumer):
    """Celery's object that waits for results: of the threads that wait, one listens for all."""

    app: Any
    backend: _Backend
    _pending_results: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._errors: tuple[type[Exception], ...] = (ResponseError, *self.backend.connection_errors)
        self._reset()

    def _reset(self) -> None:
        """Begin without connections: at first, and in a forked process."""
        self._process = os.getpid()
        self._oid = self.app.thread_oid
        #: Ids of jobs that will be announced here.
        self._sent: set[str] = set()
        #: Ids of jobs whose keys have to be read: they may have been announced before.
        self._unread: set[str] = set()
        self._waiters: set[ResultWaiter] = set()
        #: Results that were announced before anyone asked for them.
        self.buffer = ResultBuffer(RESULT_BUFFER_BYTES)
        #: Jobs of batches, by their ids.
        self.batches: dict[str, BatchWaiter] = {}
        #: Pseudo-waiter for pending results that have callbacks but no waiting thread.
        self._others = ResultWaiter()
        self._others.read_at = 0.0
        self._setting = Lock()
        self._connections = ResultConnections(self.backend)
        self._listener = Listener(self._connections, self._oid)

    # Celery's hooks --------------------------------------------------------------------

    def stop(self) -> None:
        """Close the connections that no other thread uses."""
        self._connections.close()
        self._listener.close()

    def sent(self, job_id: str, oid: str) -> None:
        """Note that a job is sent from here, to be announced to `oid`."""
        self._reset_after_fork()
        if oid == self._oid:
            self._sent.add(job_id)
            if not self._listener.is_subscribed:
                self._unread.add(job_id)

    def consume_from(self, task_id: str) -> None:
        """Read the key of a result that may have been announced before, or elsewhere."""
        if task_id not in self._sent:
            self._unread.add(task_id)
            self._others.read_at, self._others.poll_interval = 0.0, MIN_POLL

    def resolve(self, result: Any) -> bool:
        """Fulfil a result from the buffer; return False if it is not there."""
        meta = self.buffer.take(result.id)
        if meta is None:
            return False
        if _fulfil(result, meta, self._setting):
            result.on_ready(result)
        return True

    def cancel_for(self, task_id: str) -> None:
        """Forget a job whose results are gone; the garbage collector calls this, too."""
        self._sent.discard(task_id)
        self._unread.discard(task_id)

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for news of any job, for `timeout` seconds at most."""
        self._reset_after_fork()
        waiter = ResultWaiter(deadline=monotonic() + (INTERVAL if timeout is None else timeout))
        self._waiters.add(waiter)
        try:
            self._pause(waiter)
        finally:
            self._waiters.discard(waiter)

    def on_state_change(self, meta: Any, message: Any = None) -> None:
        """Pass a job's state on to its results and waiters."""
        self._notify(meta)

    def forget(self, job_ids: Sequence[str], seconds: float) -> None:
        """Remove the results of jobs; raises redis-py's errors."""
        keys = [self.backend.get_key_for_task(job_id) for job_id in job_ids]
        self._connections.delete(keys, seconds)

    # Waiting for a batch -----------------------------------------------------------------

    @contextmanager
    def batch(self, connect_timeout: float) -> Iterator[BatchWaiter]:
        """Yield a waiter for jobs that are about to be sent."""
        self._reset_after_fork()
        waiter = BatchWaiter(self.batches, self._oid)
        if not self._listener.is_subscribed:
            self._hear_now(INTERVAL, connect_timeout)
        waiter.read_at = monotonic() + self._next_read(waiter)
        self._waiters.add(waiter)
        try:
            yield waiter
        finally:
            waiter.forget(waiter.open)
            self._waiters.discard(waiter)

    def poll(self) -> None:
        """Take in the notices that have arrived, without waiting."""
        if self._listener.is_subscribed:
            self._hear_now(0, math.inf)

    def _hear_now(self, seconds: float, connect_timeout: float) -> None:
        if not self._listener.turn.acquire(blocking=False):
            return
        try:
            self._hear(seconds, connect_timeout)
        except self._errors:
            self._listener.unsubscribe()  # waiting subscribes again, and reads keys meanwhile
        finally:
            self._listener.turn.release()

    def wait(self, waiter: BatchWaiter, until: float) -> bool:
        """Wait until a job of a batch has ended; return False if none has by `until`.

        Then the jobs' keys were read, or the waiter's `error` says why not.
        """
        while True:
            waiter.woken.clear()
            if waiter.ended:
                return True
            now = monotonic()
            if now >= min(waiter.read_at, until):
                self._read_and_notify(waiter, until)
                if waiter.ended or now >= until:
                    return bool(waiter.ended)
            waiter.deadline = until
            self._pause(waiter)

    # Waiting for results -----------------------------------------------------------------

    def _wait_for_pending(
        self,
        result: Any,
        timeout: Any = None,
        on_interval: Any = None,
        on_message: Any = None,
        **_: Any,
    ) -> Iterator[deque[str]]:
        """Wait for all jobs, and yield those that ended; raises Celery's TimeoutError."""
        self._reset_after_fork()
        began = monotonic()
        deadline = math.inf if timeout is None else began + timeout
        waiter = ResultWaiter(jobs(result), deadline, wants_news=on_message is not None)
        interval_at = began + INTERVAL
        self._waiters.add(waiter)
        try:
            for known in [each._cache for each in jobs(result) if each._cache]:  # noqa: SLF001
                self._notify(known)
            if self._unread.isdisjoint(waiter.open):  # read, or announced since it was sent
                waiter.read_at = began + self._next_read(waiter)
            while True:
                waiter.woken.clear()
                if waiter.open and monotonic() >= min(waiter.read_at, deadline):
                    self._read_and_notify(waiter, deadline)
                while on_message and waiter.news:
                    on_message(waiter.news.popleft())
                yield waiter.ended
                if not waiter.open:
                    _raise_parents_error(result, on_interval)
                    return
                if monotonic() >= deadline:
                    error = waiter.error
                    why = f": the result store does not answer ({error})" if error else ""
                    raise CeleryTimeout(f"The operation timed out{why}.") from error
                self._pause(waiter)
                if on_interval and monotonic() >= interval_at and waiter.open and not waiter.error:
                    interval_at = monotonic() + INTERVAL
                    on_interval()
        finally:
            self._leave(waiter)

    def _leave(self, waiter: ResultWaiter) -> None:
        self._waiters.discard(waiter)
        for result in [each for results in [*waiter.open.values()] for each in results]:
            if not any(result.on_ready.listeners):  # nothing is to be called back
                self.backend._remove_pending_result(result)  # noqa: SLF001 - Celery adds it again

    def _read_and_notify(self, waiter: ResultWaiter, deadline: float) -> None:
        for meta in self._read(waiter, deadline):
            self._notify(meta)

    def _read(self, waiter: ResultWaiter, deadline: float) -> list[Any]:
        """Return what is stored of a waiter's jobs, and set when to read again."""
        job_ids, found = [*waiter.open], list[Any]()
        try:
            found = _stored(self.backend, self._connections, job_ids, deadline)
            waiter.error = None
            self._unread.difference_update(job_ids)
        except AuthenticationError:
            raise
        except self._errors as error:
            if isinstance(error, ResponseError) and not is_state_of_server(error):
                raise
            if waiter.error is None:
                logger.info("waiting for results goes on without the store: %s", error)
            waiter.error = error
        waiter.read_at = monotonic() + self._next_read(waiter)
        return found

    def _next_read(self, waiter: ResultWaiter) -> float:
        """Return the seconds until the waiter's keys are read again."""
        is_batch = isinstance(waiter, BatchWaiter)
        is_announced = is_batch or self._sent.issuperset([*waiter.open])
        if self._listener.is_subscribed and not waiter.error and is_announced:
            return INTERVAL
        return waiter.next_poll()

    def _pause(self, waiter: ResultWaiter) -> None:
        """Listen for all waiters, or wait to be woken by the thread that does."""
        until = min(waiter.deadline, waiter.read_at)
        if not self._listener.turn.acquire(blocking=False):
            waiter.woken.wait(max(until - monotonic(), 0))
            return
        try:
            self._listen(waiter, until)
        finally:
            self._listener.turn.release()
            for other in self._waiters - {waiter}:  # all: some may be busy in callbacks
                other.woken.set()

    # Listening ---------------------------------------------------------------------------

    def _listen(self, waiter: ResultWaiter, until: float) -> None:
        while not waiter.woken.is_set() and (left := until - monotonic()) > 0:
            try:
                if monotonic() >= self._others.read_at:
                    self._read_others(waiter.deadline)
                seconds = min(left, self._others.read_at - monotonic())
                self._hear(seconds, waiter.deadline - monotonic())
            except self._errors:  # forbidden, or unreachable
                self._listener.unsubscribe()
                waiter.woken.wait(max(min(MAX_POLL, until - monotonic()), 0))

    def _hear(self, seconds: float, connect_timeout: float) -> None:
        kind, content = self._listener.hear(seconds, connect_timeout)
        if kind == b"message":
            self._take_in(content)
        elif kind == b"subscribe":  # earlier notices were lost
            self._unread |= self._sent
            self._others.read_at = 0.0
            for waiter in [*self._waiters]:
                waiter.read_at = 0.0
                waiter.woken.set()

    def _take_in(self, notice: Any) -> None:
        job_id = self.backend.job_of(notice)
        if job_id is None:
            self._notify_or_buffer(self.backend.metas(notice))
            return
        self._sent.discard(job_id)  # there will be no other notice
        if batch_of(self.batches, job_id) or _pending(self._pending_results, job_id):
            found = _stored(self.backend, self._connections, [job_id], math.inf)
            self._notify_or_buffer(found)

    def _read_others(self, deadline: float) -> None:
        waited_for = {job_id for waiter in [*self._waiters] for job_id in [*waiter.open]}
        pending = {job_id for mapping in self._pending_results for job_id in [*mapping]}
        self._others.open = {job_id: [] for job_id in pending - waited_for}
        self._notify_or_buffer(self._read(self._others, deadline))

    def _notify_or_buffer(self, metas: list[Any]) -> None:
        for meta in metas:
            if not self._notify(meta) and meta["status"] == SUCCESS:  # no state follows it
                self.buffer.put(meta["task_id"], meta)

    def _notify(self, meta: Any) -> bool:
        """Pass a job's state on; return False if it is new and nothing waits for it."""
        job_id, fulfilled = meta["task_id"], list[Any]()
        batch = batch_of(self.batches, job_id)
        is_known = job_id not in self._sent
        if batch is not None:
            self._sent.discard(job_id)
            batch.notify(job_id, meta)
            return True
        results: list[Any] = []
        if meta["status"] in READY_STATES:
            # In this order: a thread that begins to wait now is notified, or reads the key.
            self._sent.discard(job_id)
            results = _pending(self._pending_results, job_id)
            results += [each for waiter in [*self._waiters] for each in waiter.open.get(job_id, ())]
            fulfilled = [result for result in results if _fulfil(result, meta, self._setting)]
        try:
            for result in fulfilled:
                result.on_ready(result)
        finally:
            for waiter in [*self._waiters]:
                if waiter.is_for_any or job_id in waiter.open:
                    waiter.notify(job_id, meta)
        return is_known or bool(results)

    def _reset_after_fork(self) -> None:
        if self._process != os.getpid():
            self._reset()


def _stored(
    backend: _Backend, connections: ResultConnections, job_ids: list[str], deadline: float
) -> list[Any]:
    """Return the stored states of jobs that have one; an unreadable one is a failure."""
    keys = [backend.get_key_for_task(job_id) for job_id in job_ids]
    values = connections.read(keys, deadline - monotonic()) if keys else []
    metas = []
    for job_id, value in zip(job_ids, values, strict=bool(keys)):
        try:
            if value is not None:
                metas.append(backend.meta_of(job_id, value))
        except Exception as error:  # noqa: BLE001 - the caller gets it in the result's place
            metas.append({"task_id": job_id, "status": FAILURE, "result": error})
    return metas


def _pending(pending_results: Any, job_id: str) -> list[Any]:
    """Return the results of a job that Celery keeps as pending."""
    found = (mapping.get(job_id, {}) for mapping in pending_results)
    return [result for results in found for result in [*results.values()]]


def _fulfil(result: Any, meta: Any, setting: Lock) -> bool:
    """Set a result's state; return True to the one thread that may call back."""
    with setting:
        if result._cache is not None:  # noqa: SLF001 - as Celery's _maybe_set_cache
            return False
        result._set_cache(meta)  # noqa: SLF001
        return True


def _raise_parents_error(result: Any, on_interval: Any) -> None:
    """Raise the error of a job before one that has failed: a chord's body fails with its header.

    Celery passes the function that raises it as `on_interval`.
    """
    if not on_interval:
        return
    states = [each._cache["status"] for each in jobs(result) if each._cache]  # noqa: SLF001
    if not PROPAGATE_STATES.isdisjoint(states):
        on_interval()


def jobs(result: Any) -> list[Any]:
    """Return the jobs of a result, or of a set of results."""
    if not hasattr(result, "results"):
        return [result]
    return [job for member in result.results for job in jobs(member)]
