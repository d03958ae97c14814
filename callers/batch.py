"""Many calls of one task: submitted in batches, and yielded in order while others still run."""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple

from celery.states import FAILURE, SUCCESS
from kombu.exceptions import SerializationError

from callers import contracts
from callers.bundling import OPEN, Bundling, Unit
from celery_streams import bundles
from celery_streams.errors import Unreadable
from celery_streams.producer.jobs import new_id
from celery_streams.producer.submission import PUBLISH_BATCH
from celery_streams.results.consumer import ResultConsumer
from celery_streams.results.waiters import BatchWaiter
from cluster.app import App
from cluster.arguments import brief
from cluster.connections import broker
from cluster.errors import ClusterError, JobTimeout, QueueFull, Unreachable
from cluster.values.backend import Meta
from cluster.values.codec import Packed

#: Calls that are submitted and not yielded yet.
WINDOW = 10_000
#: Bundles that are submitted at once.
BUNDLES = 4
#: Seconds in which a batch of arguments should come; if it takes longer, the next one is smaller.
ARGUMENTS_TIME = 0.005
#: Seconds for operations that the caller does not wait for.
CLEANUP_TIMEOUT = 1.0
#: Errors of one job's arguments, which other jobs do not share.
_OF_ONE_JOB = (TypeError, ValueError, RecursionError, SerializationError, ClusterError)


class _Ended(NamedTuple):
    """The end of a call that was a job of its own: what is stored of it."""

    job_id: str
    meta: Any


class BatchRun:
    """The calls of one task, at most `window` of them submitted and not yielded.

    Many quick ones travel as bundles, as many in each as take 10 ms. Each call may take `timeout`
    seconds from its submission; `deadline` is for all, by the monotonic clock. `transfers` is a
    context for moving large values; `why_late` describes a late job. If it `cleans_up`, it removes
    results that were yielded, and revokes jobs whose values are not wanted any more. Without
    `bundle`, each call is a job.
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
        bundle: bool = True,
    ) -> None:
        self._app, self._task, self._kwargs = app, task, kwargs
        self._transfers, self._why_late_of = transfers, why_late
        self._cleans_up = cleans_up
        self._contract = contracts.of(task) if kwargs is None else None  # a single call's is done
        self._rows = iter(rows)
        #: Rows that are not taken yet, as far as that is known.
        self._left = len(rows) if isinstance(rows, list | tuple | range) else math.inf
        self._window, self._size = window, 1
        self._timeout, self._deadline = timeout, deadline
        self._bundling = Bundling(window if bundle and not kwargs else 1)
        #: Submitted units in order, and by the ids of their jobs that have not ended.
        self._order: deque[Unit] = deque()
        self._units: dict[str, Unit] = {}
        #: The number of calls that are submitted and not yielded.
        self._submitted = 0
        #: The numbers of rows that were taken and of calls that were yielded.
        self._taken = self._passed = 0
        #: The errors of calls that the contract refuses and that are not yielded, by their rows.
        self._refused: dict[int, Exception] = {}
        #: Jobs that were yielded, whose results are to be removed.
        self._yielded: list[str] = []
        self._some_were_late = False
        store: Any = app.backend
        self._store = store
        self._results: ResultConsumer = store.result_consumer
        self._waiter: BatchWaiter

    def values(self) -> Iterator[Any]:
        """Yield each call's value, or the error in its place, in order."""
        seconds = min(self._timeout, CLEANUP_TIMEOUT)
        with self._results.batch(seconds) as self._waiter:
            try:
                while self._order or self._left:
                    self._step()
                    yield from self._take_refused()
                    while self._order and (yield from self._take(self._order[0])):
                        self._order.popleft()
            except Unreachable:
                raise
            except BaseException:
                self._revoke()
                raise
            finally:
                self._forget()

    def _take(self, unit: Unit) -> Generator[Any, None, bool]:
        """Yield the values of a unit that are there; return True if it has no others."""
        for each in unit.outcomes[unit.yielded :]:
            if each is OPEN:
                return False
            unit.yielded += 1
            self._submitted -= 1
            self._passed += 1
            yield self._value(each) if type(each) is _Ended else each
            if self._refused:
                yield from self._take_refused()
        return True

    def _take_refused(self) -> Generator[Any, None, None]:
        """Yield the errors of the next calls, as far as these were refused."""
        while self._passed in self._refused:
            self._passed += 1
            yield self._refused.pop(self._passed - 1)

    def _step(self) -> None:
        """Submit some jobs, or wait if enough are submitted; then collect those that ended."""
        room = self._window - self._submitted - len(self._refused)
        wanted = min(self._size, max(1, self._window // 4))
        if self._left and room >= wanted and not self._bundling.waits(self._submitted):
            self._submit(min(self._size, room))
            if self._left:
                self._results.poll()
        else:
            self._wait()
        while self._waiter.ended:
            meta = self._waiter.ended.popleft()
            self._ended(meta["task_id"], meta)

    # Submit ----------------------------------------------------------------------------

    def _submit(self, count: int) -> None:
        began = monotonic()
        rows = [*islice(self._rows, count)]
        self._left = self._left - count if len(rows) == count else 0
        for row in rows:
            check_row(row)
        now = monotonic()
        # If arguments come slowly, those at hand are submitted sooner.
        is_quick = now - began < ARGUMENTS_TIME
        most = max(PUBLISH_BATCH, BUNDLES * self._bundling.calls)
        self._size = min(2 * count, most) if is_quick else max(1, count // 4)
        deadline = min(self._deadline, now + self._timeout)
        rows = self._accepted(rows)
        parts = self._bundling.parts(rows) if rows else []
        made = [(Unit(new_id(), len(part), deadline), part) for part in parts]
        units = {unit.id: (unit, part) for unit, part in made}
        self._waiter.expect(job_id for job_id, (unit, _) in units.items() if unit.is_bundle)
        self._order.extend(unit for unit, _ in units.values())
        self._submitted += len(rows)
        try:
            self._send(units, deadline - now)
        except broker.UNREACHABLE_ERRORS as error:
            raise broker.unreachable(self._app, error) from None

    def _accepted(self, rows: list[Sequence[Any]]) -> list[Sequence[Any]]:
        """Return the rows that the contract accepts; note the errors of the others."""
        first, self._taken = self._taken, self._taken + len(rows)
        if errors := self._contract.errors(rows) if self._contract else None:
            self._refused |= {first + position: error for position, error in errors.items()}
            rows = [row for position, row in enumerate(rows) if position not in errors]
        return rows

    def _send(self, units: dict[str, tuple[Unit, Sequence[Any]]], seconds: float) -> None:
        single: dict[str, Sequence[Any]] = {}
        for unit, rows in self._unbundled(units, seconds):
            unit.is_bundle = False
            own = {unit.call_id(position): row for position, row in enumerate(rows)}
            self._waiter.forget([unit.id])
            self._waiter.expect(own)
            self._units |= dict.fromkeys(own, unit)
            single |= own
        if single:
            self._send_single(single, seconds)

    def _unbundled(
        self, units: dict[str, tuple[Unit, Sequence[Any]]], seconds: float
    ) -> Iterator[tuple[Unit, Sequence[Any]]]:
        """Send the bundles, and return the units whose calls are to be sent as jobs."""
        bundled = {job_id: (rows,) for job_id, (unit, rows) in units.items() if unit.is_bundle}
        others: Iterable[str] | None = ()
        if bundled:
            named = {"task": self._task}
            self._app.submission.learn(bundles.NAME, {}, named)
            others = self._app.submission.send_batch(
                bundles.NAME, bundled, named, reply_to=self._waiter.oid, **retry_policy(seconds)
            )
            if others:
                self._bundling.too_large()
        sent = bundled.keys() - (bundled if others is None else others)
        for job_id, (unit, rows) in units.items():
            if job_id in sent:
                self._units[job_id] = unit
            else:
                yield unit, rows

    def _send_single(self, jobs: dict[str, Sequence[Any]], seconds: float) -> None:
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
            unit = self._units[job_id]
            self._end(unit, unit.position(job_id) or 0, error)

    # Collect ---------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait until some job has ended; at the deadline of the next one, end it as late."""
        until = self._order[0].deadline
        first_ended = self._bundling.waits_until if self._left else until
        if self._results.wait(self._waiter, min(until, first_ended)) or monotonic() < until:
            return
        if self._waiter.error:
            raise broker.unreachable(self._app, self._waiter.error)
        for unit in self._order:
            if unit.deadline > until:
                break
            for position in unit.open():
                job_id = unit.id if unit.is_bundle else unit.call_id(position)
                self._end(unit, position, JobTimeout(self._why_late(job_id)))

    def _why_late(self, job_id: str) -> str:
        if self._some_were_late:  # asking all workers takes seconds
            return f"{self._task} gave no result within {self._timeout:g} s: job {job_id}"
        self._some_were_late = True
        return self._why_late_of(self._app.AsyncResult(job_id), self._task, self._timeout)

    def _ended(self, job_id: str, meta: Any) -> None:
        """Note what is stored of a job that has ended."""
        unit = self._units.pop(job_id, None)
        if unit and unit.is_bundle:
            self._note_yielded(job_id)
            self._bundle_ended(unit, meta)
            return
        unit = unit or self._units.get(bundles.bundle_of(job_id))
        position = unit.position(job_id) if unit else None
        if unit and position is not None:  # else it was late
            unit.outcomes[position] = _Ended(job_id, meta)

    def _bundle_ended(self, unit: Unit, meta: Any) -> None:
        unit.is_bundle = False
        try:
            outcome = bundles.outcome(meta["result"], len(unit.outcomes))
        except Unreadable as error:
            if meta["status"] == SUCCESS:
                meta = {"status": FAILURE, "result": error}
            unit.end([_Ended(unit.id, meta)] * len(unit.outcomes))
            return
        self._bundling.ended(outcome)
        if own := unit.end(outcome.values, outcome.own):
            self._units |= dict.fromkeys(own, unit)
            self._waiter.expect(own)
            self._waiter.read_at = 0.0  # a notice may have been lost

    def _end(self, unit: Unit, position: int, error: BaseException) -> None:
        """End a call without a stored result."""
        job_id = unit.id if unit.is_bundle else unit.call_id(position)
        self._units.pop(job_id, None)
        self._waiter.forget([job_id])
        unit.outcomes[position] = _Ended(job_id, {"status": FAILURE, "result": error})

    def _note_yielded(self, job_id: str) -> None:
        if self._cleans_up:
            self._yielded.append(job_id)
            if len(self._yielded) >= PUBLISH_BATCH:
                self._forget()

    def _value(self, ended: _Ended) -> Any:
        job_id, meta = ended
        if "task_id" in meta:
            self._note_yielded(job_id)
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
        waiting = [job_id for unit in self._order for job_id in unit.open_jobs()]
        if waiting and self._cleans_up:
            with suppress(OSError, *broker.UNREACHABLE_ERRORS):
                self._app.control.revoke(waiting)


def check_row(row: Any) -> None:
    """Raise TypeError unless a job's arguments are a list or a tuple."""
    if not isinstance(row, list | tuple):
        raise TypeError(f"a job's arguments are a tuple, such as (4, 6), not {brief(row)}")


def retry_policy(seconds: float) -> dict[str, Any]:
    """Return the policy for publishing within `seconds`: each try and its pause take three."""
    return {"max_retries": max(1, int(seconds / 3))}


def without_numpy(value: Packed) -> ClusterError:
    """Return the error for an array that cannot be made here."""
    return ClusterError(f"the value is an array ({value!r}): install numpy here")
