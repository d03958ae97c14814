"""Many jobs of one task: submitted in batches, and yielded in order while others still run."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import islice
from time import monotonic
from typing import Any

from celery.states import FAILURE, SUCCESS
from kombu.exceptions import SerializationError

from celery_streams.producer.jobs import new_id
from celery_streams.producer.submission import PUBLISH_BATCH
from celery_streams.results.consumer import ResultConsumer
from celery_streams.results.waiters import BatchWaiter
from cluster import broker
from cluster.app import App
from cluster.arguments import brief
from cluster.backend import Meta
from cluster.codec import Packed
from cluster.errors import ClusterError, JobTimeout, QueueFull, Unreachable

#: Jobs that are submitted and not yielded yet.
WINDOW = 10_000
#: Seconds in which a batch of arguments should come; if it takes longer, the next one is smaller.
ARGUMENTS_TIME = 0.005
#: Seconds for operations that the caller does not wait for.
CLEANUP_TIMEOUT = 1.0
#: Errors of one job's arguments, which other jobs do not share.
_OF_ONE_JOB = (TypeError, ValueError, RecursionError, SerializationError, ClusterError)


class BatchRun:
    """The jobs of one task, at most `window` of them submitted and not yielded.

    Each may take `timeout` seconds from its submission; `deadline` is for all, by the monotonic
    clock. `transfers` is a context for moving large values; `why_late` describes a late job. If
    it `cleans_up`, it removes results that were yielded, and revokes jobs whose values are not
    wanted any more.
    """

    def __init__(
        self,
        app: App,
        task: str,
        rows: Iterable[Sequence[Any]],
        kwargs: dict[str, Any] | None = None,
        *,
        window: int,
        timeout: float,
        deadline: float = math.inf,
        transfers: Callable[[str, float, float], AbstractContextManager[object]],
        why_late: Callable[[Any, str, float], str],
        cleans_up: bool = True,
    ) -> None:
        self._app, self._task, self._kwargs = app, task, kwargs
        self._transfers, self._why_late_of = transfers, why_late
        self._cleans_up = cleans_up
        self._rows = iter(rows)
        #: Rows that are not taken yet, as far as that is known.
        self._left = len(rows) if isinstance(rows, list | tuple | range) else math.inf
        self._window, self._size = window, 1
        self._timeout, self._deadline = timeout, deadline
        #: Submitted jobs in order, each with its deadline.
        self._order: deque[tuple[str, float]] = deque()
        #: What is known of the jobs that ended, by their ids.
        self._ended: dict[str, Any] = {}
        #: Jobs that were yielded, whose results are to be removed.
        self._yielded: list[str] = []
        self._some_were_late = False
        store: Any = app.backend
        self._store = store
        self._results: ResultConsumer = store.result_consumer
        self._waiter: BatchWaiter

    def values(self) -> Iterator[Any]:
        """Yield each job's value, or the error in its place, in order."""
        seconds = min(self._timeout, CLEANUP_TIMEOUT)
        with self._results.batch(seconds) as self._waiter:
            try:
                while self._order or self._left:
                    self._step()
                    while self._order and self._order[0][0] in self._ended:
                        yield self._next()
            except Unreachable:
                raise
            except BaseException:
                self._revoke()
                raise
            finally:
                self._forget()

    def _step(self) -> None:
        """Submit some jobs, or wait if enough are submitted; then collect those that ended."""
        room = self._window - len(self._order)
        if self._left and room >= min(self._size, max(1, self._window // 4)):
            self._submit(min(self._size, room))
            if self._left:
                self._results.poll()
        else:
            self._wait()
        while self._waiter.ended:
            meta = self._waiter.ended.popleft()
            self._ended[meta["task_id"]] = meta

    # Submit ----------------------------------------------------------------------------

    def _submit(self, count: int) -> None:
        began = monotonic()
        rows = [*islice(self._rows, count)]
        self._left = self._left - count if len(rows) == count else 0
        for row in rows:
            if not isinstance(row, list | tuple):
                raise TypeError(f"a job's arguments are a tuple, such as (4, 6), not {brief(row)}")
        now = monotonic()
        # If arguments come slowly, those at hand are submitted sooner.
        is_quick = now - began < ARGUMENTS_TIME
        self._size = min(2 * count, PUBLISH_BATCH) if is_quick else max(1, count // 4)
        deadline = min(self._deadline, now + self._timeout)
        jobs = {new_id(): args for args in rows}
        self._waiter.expect(jobs)
        self._order.extend((job_id, deadline) for job_id in jobs)
        try:
            self._send(jobs, deadline - now)
        except broker.UNREACHABLE_ERRORS as error:
            raise broker.unreachable(self._app, error) from None

    def _send(self, jobs: dict[str, Sequence[Any]], seconds: float) -> None:
        policy = retry_policy(seconds)
        others = self._app.submission.send_batch(
            self._task, jobs, self._kwargs, reply_to=self._waiter.oid, **policy
        )
        if others is not None:
            for job_id in others:
                self._send_one(job_id, jobs[job_id], seconds)
            return
        with self._app.producer_or_acquire() as producer, producer.batch():
            for job_id, args in jobs.items():
                self._send_one(job_id, args, seconds, producer=producer)

    def _send_one(self, job_id: str, args: Sequence[Any], seconds: float, **options: Any) -> None:
        options |= {"task_id": job_id, "reply_to": self._waiter.oid}
        options["retry_policy"] = retry_policy(seconds)
        try:
            with self._transfers(self._task, monotonic() + seconds, seconds):
                self._app.send_task(self._task, args, self._kwargs or {}, **options)
        except (QueueFull, Unreachable):
            raise
        except _OF_ONE_JOB as error:
            self._end(job_id, error)

    # Collect ---------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait until some job has ended; at the deadline of the next one, end it as late."""
        until = self._order[0][1]
        if self._results.wait(self._waiter, until):
            return
        if self._waiter.error:
            raise broker.unreachable(self._app, self._waiter.error)
        for job_id, deadline in self._order:
            if deadline > until:
                break
            if job_id not in self._ended:
                self._end(job_id, JobTimeout(self._why_late(job_id)))

    def _why_late(self, job_id: str) -> str:
        if self._some_were_late:  # asking all workers takes seconds
            return f"{self._task} gave no result within {self._timeout:g} s: job {job_id}"
        self._some_were_late = True
        return self._why_late_of(self._app.AsyncResult(job_id), self._task, self._timeout)

    def _end(self, job_id: str, error: BaseException) -> None:
        """End a job without a stored result."""
        self._waiter.forget([job_id])
        self._ended[job_id] = {"status": FAILURE, "result": error}

    def _next(self) -> Any:
        job_id, _ = self._order.popleft()
        meta = self._ended.pop(job_id)
        if "task_id" in meta and self._cleans_up:
            self._yielded.append(job_id)
            if len(self._yielded) >= PUBLISH_BATCH:
                self._forget()
        if type(meta) is dict:
            value = meta["result"]
            if meta["status"] == SUCCESS or isinstance(value, BaseException):
                return value if not isinstance(value, Packed) else without_numpy(value)
            return ClusterError(f"the job ended as {meta['status']}: {value!r}")
        return self._transferred(job_id, meta)

    def _transferred(self, job_id: str, meta: Meta) -> Any:
        """Return a large value, and remove it from Redis, unless there was no time to move it."""
        deadline = min(self._deadline, monotonic() + self._timeout)
        try:
            with self._transfers(self._task, deadline, self._timeout):
                value = meta["result"]
        except broker.UNREACHABLE_ERRORS as error:
            raise broker.unreachable(self._app, error) from None
        except JobTimeout as error:
            return error
        except ClusterError as error:
            value = error
        with suppress(OSError, *broker.UNREACHABLE_ERRORS):
            self._store.remove(job_id, meta)
        return without_numpy(value) if isinstance(value, Packed) else value

    # End -------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Remove the results of yielded jobs; if Redis is unreachable, they expire."""
        yielded, self._yielded = self._yielded, []
        if yielded:
            with suppress(OSError, *broker.UNREACHABLE_ERRORS):
                self._results.forget(yielded, CLEANUP_TIMEOUT)

    def _revoke(self) -> None:
        """Revoke the jobs whose values are not wanted any more."""
        waiting = [job_id for job_id, _ in self._order if job_id not in self._ended]
        if waiting and self._cleans_up:
            with suppress(OSError, *broker.UNREACHABLE_ERRORS):
                self._app.control.revoke(waiting)


def retry_policy(seconds: float) -> dict[str, Any]:
    """Return the policy for publishing within `seconds`: each try and its pause take three."""
    return {"max_retries": max(1, int(seconds / 3))}


def without_numpy(value: Packed) -> ClusterError:
    """Return the error for an array that cannot be made here."""
    return ClusterError(f"the value is an array ({value!r}): install numpy here")
