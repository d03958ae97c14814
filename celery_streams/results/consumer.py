"""Waiting for results: woken by notices, and never dependent on one.

A worker announces a result on the channel of whoever sent the job, who subscribes once. Each
waiting thread reads its results' keys, too: once a second and at its deadline, and more often
for jobs whose notices go elsewhere. A notice tells of one job, or of several at once.
"""

import logging
import math
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Self

from celery.backends.asynchronous import BaseResultConsumer
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.states import FAILURE, READY_STATES, SUCCESS
from redis.exceptions import AuthenticationError, ResponseError

from celery_streams.results.buffer import ResultBuffer
from celery_streams.results.connections import ResultConnections, Subscription
from celery_streams.retries import is_state_of_server

logger = logging.getLogger(__name__)

#: Seconds between two readings of a key whose job is announced here.
INTERVAL = 1.0
#: Those between two of any other, or two tries to subscribe: at first, and at most.
QUICK, SLOW = 0.005, 0.25
#: Bytes of results that are kept for who asks later.
RESULT_BUFFER_BYTES = 16 * 1024 * 1024


class ResultWaiter:
    """One thread's wait for one result, or for those of a group."""

    def __init__(
        self,
        results: Iterable[Any] = (),
        deadline: float = math.inf,
        *,
        wants_news: bool = False,
    ) -> None:
        #: Results of which no end is known, by their job's id; jobs that ended; news of all.
        self.open: dict[str, list[Any]] = {}
        self.ended: deque[str] = deque()
        self.news: deque[Any] = deque()
        self._wants_news = wants_news
        self._told: dict[str, Any] = {}
        for result in results:
            self.open.setdefault(result.id, []).append(result)
        self.is_for_any = not self.open
        self.woken = threading.Event()
        self.deadline = deadline
        #: When the keys are to be read next, and how much later again.
        self.read_at, self.pause = (0.0 if self.open else math.inf), QUICK
        self.error: Exception | None = None

    def tell(self, job_id: str, meta: Any) -> None:
        """Note what became of a job, for the thread that waits."""
        if meta["status"] not in READY_STATES:
            if self._wants_news and self._told.get(job_id) != meta:
                self._told[job_id] = meta
                self.news.append(meta)
        elif self.open.pop(job_id, []):
            self.ended.append(job_id)
            if self._wants_news:
                self.news.append(meta)
        self.woken.set()


class BatchWaiter(ResultWaiter):
    """One thread's wait for many jobs of its own, of which nobody else holds a result.

    A context manager. What ended is in `ended`, as it is known of a job.
    """

    ended: deque[Any]

    def __init__(self, consumer: "ResultConsumer", oid: str) -> None:
        super().__init__()
        self.is_for_any = False
        self._consumer = consumer
        #: Whom its jobs' results have to be announced to.
        self.oid = oid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget(self.open)
        self._consumer.leave(self)

    def expect(self, job_ids: Iterable[str]) -> None:
        """Wait for jobs, too, that are about to be sent."""
        for job_id in job_ids:
            self._consumer.batches[job_id] = self
            self.open[job_id] = []

    def forget(self, job_ids: Iterable[str]) -> None:
        """Wait no more for jobs."""
        for job_id in [*job_ids]:
            self._consumer.batches.pop(job_id, None)
            self.open.pop(job_id, None)

    def tell(self, job_id: str, meta: Any) -> None:
        """Note what became of a job."""
        if meta["status"] in READY_STATES and self.open.pop(job_id, None) is not None:
            self._consumer.batches.pop(job_id, None)
            self.ended.append(meta)
            if not self.woken.is_set():
                self.woken.set()

    def poll(self) -> None:
        """Take in what is announced already, without waiting."""
        self._consumer.poll(self)

    def wait(self, until: float) -> bool:
        """Wait until a job has ended, and tell so; False if none has by the time.

        Then the jobs' keys were read, or `error` says why not.
        """
        return self._consumer.wait(self, until)


class ResultConsumer(BaseResultConsumer):
    """Celery's part that waits for results; of the threads that wait, one listens for all."""

    app: Any
    backend: Any
    _pending_results: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._connection_errors = self.backend.connection_errors
        self._reset()

    def _reset(self) -> None:
        """Begin anew, without connections: at first, and in a forked process."""
        self._process = os.getpid()
        self._oid = self.app.thread_oid
        #: Jobs that are announced to `_oid`; those whose keys are to be read all the same.
        self._sent: set[str] = set()
        self._unread: set[str] = set()
        self._waits: set[ResultWaiter] = set()
        #: What was announced, and nobody has asked for yet.
        self.buffer = ResultBuffer(RESULT_BUFFER_BYTES)
        #: Jobs that one thread alone waits for, by their ids.
        self.batches: dict[str, BatchWaiter] = {}
        #: Stands for results with callbacks that no thread waits for.
        self._others = ResultWaiter()
        self._others.read_at = 0.0
        self._setting = threading.Lock()
        self._connections = ResultConnections(self.backend)
        #: Held by the thread that listens, which alone touches what follows.
        self._turn = threading.RLock()
        self._subscription: Subscription | None = None

    # What Celery calls ---------------------------------------------------------------

    def stop(self) -> None:
        """Close the connections, but for those that another thread uses."""
        self._connections.close()
        if self._turn.acquire(blocking=False):
            self._unsubscribe()
            self._turn.release()

    def sent(self, job_id: str, oid: str) -> None:
        """Note that a job is sent from here, to be announced to `oid`."""
        self._look_after_fork()
        if oid == self._oid:
            self._sent.add(job_id)
            if self._subscription is None:
                self._unread.add(job_id)

    def consume_from(self, task_id: str) -> None:
        """Have a result's key read, where it may have been announced before, or elsewhere."""
        if task_id not in self._sent:
            self._unread.add(task_id)
            self._others.read_at, self._others.pause = 0.0, QUICK

    def resolve(self, result: Any) -> bool:
        """Give a result what was announced of its job before; tell whether something was."""
        meta = self.buffer.take(result.id)
        if meta is None:
            return False
        if self._fulfil(result, meta):
            result.on_ready(result)
        return True

    def _fulfil(self, result: Any, meta: Any) -> bool:
        """Set what is known of a result, once; one thread alone calls back."""
        with self._setting:
            if result._cache is not None:  # noqa: SLF001 - as Celery's _maybe_set_cache
                return False
            result._set_cache(meta)  # noqa: SLF001
            return True

    def cancel_for(self, task_id: str) -> None:
        """Forget a job whose results are gone; the garbage collector calls this, too."""
        self._sent.discard(task_id)
        self._unread.discard(task_id)

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for news of any job, for so many seconds at most."""
        self._look_after_fork()
        wait = ResultWaiter(deadline=monotonic() + (INTERVAL if timeout is None else timeout))
        self._waits.add(wait)
        try:
            self._pause(wait)
        finally:
            self._waits.discard(wait)

    # What waits without Celery's results ------------------------------------------------

    def wait_for_batch(self, seconds: float) -> BatchWaiter:
        """Return a wait for jobs that are about to be sent; `seconds` are there to begin it."""
        self._look_after_fork()
        batch = BatchWaiter(self, self._oid)
        if self._subscription is None and self._turn.acquire(blocking=False):
            try:
                self._hear(INTERVAL, monotonic() + seconds)
            except (ResponseError, *self._connection_errors):
                self._unsubscribe()  # the wait tries again, and reads the keys meanwhile
            finally:
                self._turn.release()
        batch.read_at = monotonic() + self._next_pause(batch)
        self._waits.add(batch)
        return batch

    def poll(self, batch: BatchWaiter) -> None:
        """Take in what is announced already."""
        if self._subscription is None or not self._turn.acquire(blocking=False):
            return
        try:
            self._hear(0, math.inf)
        except (ResponseError, *self._connection_errors):
            self._unsubscribe()
        finally:
            self._turn.release()

    def wait(self, batch: BatchWaiter, until: float) -> bool:
        """Wait until a job of a batch has ended."""
        while True:
            batch.woken.clear()
            if batch.ended:
                return True
            now = monotonic()
            if now >= min(batch.read_at, until):
                self._read_batch(batch, until)
                if batch.ended or now >= until:
                    return bool(batch.ended)
            batch.deadline = until
            self._pause(batch)

    def _read_batch(self, batch: BatchWaiter, deadline: float) -> None:
        for meta in self._read(batch, deadline):
            self.on_state_change(meta)

    def leave(self, batch: BatchWaiter) -> None:
        """End a batch's wait."""
        self._waits.discard(batch)

    def give(self, result: Any, meta: Any) -> None:
        """Give Celery's handle on a result what is known of its job."""
        result._set_cache(meta)  # noqa: SLF001 - as Celery

    def forget(self, job_ids: Sequence[str], seconds: float) -> None:
        """Remove the results of jobs; raises redis-py's errors."""
        keys = [self.backend.get_key_for_task(job_id) for job_id in job_ids]
        self._connections.delete(keys, seconds)

    # What a waiting thread does --------------------------------------------------------

    def _wait_for_pending(
        self,
        result: Any,
        timeout: Any = None,
        on_interval: Any = None,
        on_message: Any = None,
        **_: Any,
    ) -> Iterator[deque[str]]:
        """Wait for all jobs, and yield those that ended; Celery's TimeoutError at the deadline."""
        self._look_after_fork()
        began = monotonic()
        deadline = math.inf if timeout is None else began + timeout
        wait = ResultWaiter(jobs(result), deadline, wants_news=on_message is not None)
        interval_at = began + INTERVAL
        self._waits.add(wait)
        try:
            for known in [each._cache for each in jobs(result) if each._cache]:  # noqa: SLF001
                self.on_state_change(known)
            if self._unread.isdisjoint(wait.open):  # read, or announced since it was sent
                wait.read_at = began + self._next_pause(wait)
            while True:
                wait.woken.clear()
                if wait.open and monotonic() >= min(wait.read_at, wait.deadline):
                    self._read_for(wait)
                while on_message and wait.news:
                    on_message(wait.news.popleft())
                yield wait.ended
                if not wait.open:
                    return
                if monotonic() >= wait.deadline:
                    why = f": the result store does not answer ({wait.error})" if wait.error else ""
                    raise CeleryTimeout(f"The operation timed out{why}.") from wait.error
                self._pause(wait)
                if on_interval and monotonic() >= interval_at and wait.open and not wait.error:
                    interval_at = monotonic() + INTERVAL
                    on_interval()
        finally:
            self._leave(wait)

    def _read_for(self, wait: ResultWaiter) -> None:
        for meta in self._read(wait, wait.deadline):
            self.on_state_change(meta)

    def _leave(self, wait: ResultWaiter) -> None:
        self._waits.discard(wait)
        for result in [each for results in [*wait.open.values()] for each in results]:
            if not any(result.on_ready.listeners):  # nobody is called back, either
                self.backend._remove_pending_result(result)  # noqa: SLF001 - may be asked again

    def _read(self, wait: ResultWaiter, deadline: float) -> list[Any]:
        """Return what is stored of the jobs of a wait, and set when to read again."""
        job_ids, found = [*wait.open], list[Any]()
        try:
            found = self._stored(job_ids, deadline)
            wait.error = None
            self._unread.difference_update(job_ids)
        except AuthenticationError:
            raise
        except (ResponseError, *self._connection_errors) as error:
            if isinstance(error, ResponseError) and not is_state_of_server(error):
                raise
            if wait.error is None:
                logger.info("waiting for results goes on without the store: %s", error)
            wait.error = error
        wait.read_at = monotonic() + self._next_pause(wait)
        return found

    def _next_pause(self, wait: ResultWaiter) -> float:
        is_told = self._subscription and not wait.error
        if is_told and (isinstance(wait, BatchWaiter) or self._sent.issuperset([*wait.open])):
            return INTERVAL
        pause, wait.pause = wait.pause, min(2 * wait.pause, SLOW)
        return pause

    def _stored(self, job_ids: list[str], deadline: float) -> list[Any]:
        """Return what is stored of the jobs of which something is; a failure if it is no result."""
        keys = [self.backend.get_key_for_task(job_id) for job_id in job_ids]
        values = self._connections.read(keys, deadline - monotonic()) if keys else []
        found = zip(job_ids, values, strict=bool(keys))
        return [self._known(job_id, value) for job_id, value in found if value is not None]

    def _known(self, job_id: str, payload: Any) -> Any:
        try:
            return self.backend.meta_of(job_id, payload)
        except Exception as error:  # noqa: BLE001 - it is what became of the job
            return _failure(job_id, error)

    def _pause(self, wait: ResultWaiter) -> None:
        """Listen for all who wait, or be woken by the thread that does."""
        until = min(wait.deadline, wait.read_at)
        # A callback that waits does so in a thread that listens already.
        if not self._turn.acquire(blocking=False):
            wait.woken.wait(max(until - monotonic(), 0))
            return
        try:
            self._listen(wait, until)
        finally:
            self._turn.release()
            for other in self._waits - {wait}:  # all: any of them may be busy with its news
                other.woken.set()

    # What the one that listens does ----------------------------------------------------

    def _listen(self, wait: ResultWaiter, until: float) -> None:
        while not wait.woken.is_set() and (left := until - monotonic()) > 0:
            try:
                if monotonic() >= self._others.read_at:
                    self._read_others(wait.deadline)
                self._hear(min(left, self._others.read_at - monotonic()), wait.deadline)
            except (ResponseError, *self._connection_errors):  # no right to, or away
                self._unsubscribe()
                wait.woken.wait(max(min(SLOW, until - monotonic()), 0))

    def _unsubscribe(self) -> None:
        if self._subscription:
            self._subscription.close()
        self._subscription = None

    def _hear(self, seconds: float, deadline: float) -> None:
        """Wait for a notice for so many seconds; raises ConnectionError if none can come."""
        if self._subscription is None:
            self._subscription = self._connections.subscribe(
                self._oid, deadline - monotonic(), INTERVAL
            )
        kind, what = self._subscription.hear(min(max(seconds, 0), INTERVAL)) or (None, None)
        if kind == b"message":
            self._announced(what)
        elif kind == b"subscribe":  # what came before it was announced to nobody
            self._unread |= self._sent
            self._others.read_at = 0.0
            self._read_all_now()

    def _announced(self, notice: Any) -> None:
        job_id = self.backend.job_of(notice)
        if job_id is None:
            self._pass_on(self.backend.metas(notice))
            return
        self._sent.discard(job_id)  # it will not be announced again to who asks later
        if job_id in self.batches or self._pending(job_id):
            self._pass_on(self._stored([job_id], math.inf))

    def _read_others(self, deadline: float) -> None:
        waited_for = {job_id for wait in [*self._waits] for job_id in [*wait.open]}
        pending = {job_id for mapping in self._pending_results for job_id in [*mapping]}
        self._others.open = {job_id: [] for job_id in pending - waited_for}
        self._pass_on(self._read(self._others, deadline))

    def _pass_on(self, metas: list[Any]) -> None:
        for meta in metas:
            if not self._tell(meta) and meta["status"] == SUCCESS:  # final, as no other is
                self.buffer.put(meta["task_id"], meta)

    def _read_all_now(self) -> None:
        for wait in [*self._waits]:
            wait.read_at = 0.0
            wait.woken.set()

    def on_state_change(self, meta: Any, message: Any = None) -> None:
        """Give a job's state, as `metas` has it, to its results and to all who wait for it."""
        self._tell(meta)

    def _tell(self, meta: Any) -> bool:
        """Pass a job's state on; False if nobody has asked for one that is news."""
        job_id, fulfilled = meta["task_id"], list[Any]()
        batch = self.batches.get(job_id)
        is_known = job_id not in self._sent
        if batch is not None:
            self._sent.discard(job_id)
            batch.tell(job_id, meta)
            return True
        results: list[Any] = []
        if meta["status"] in READY_STATES:
            # In this order: whoever begins to wait just now either is told or reads the key.
            self._sent.discard(job_id)
            results = self._pending(job_id)
            results += [each for wait in [*self._waits] for each in wait.open.get(job_id, ())]
            fulfilled = [result for result in results if self._fulfil(result, meta)]
        try:
            for result in fulfilled:
                result.on_ready(result)
        finally:
            for wait in [*self._waits]:
                if wait.is_for_any or job_id in wait.open:
                    wait.tell(job_id, meta)
        return is_known or bool(results)

    def _pending(self, job_id: str) -> list[Any]:
        found = (mapping.get(job_id, {}) for mapping in self._pending_results)
        return [result for results in found for result in [*results.values()]]

    def _look_after_fork(self) -> None:
        if self._process != os.getpid():
            self._reset()


def _failure(job_id: str, error: Exception) -> dict[str, Any]:
    return {"task_id": job_id, "status": FAILURE, "result": error}


def jobs(result: Any) -> list[Any]:
    """Return the jobs that a result, or a set of them, is made of."""
    if not hasattr(result, "results"):
        return [result]
    return [job for member in result.results for job in jobs(member)]
