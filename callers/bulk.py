"""Many jobs of one task: submitted by the hundred, and given in order while others still run."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple

from celery.states import FAILURE, SUCCESS
from kombu.exceptions import SerializationError

from cluster import broker
from cluster.app import App
from cluster.arguments import brief
from cluster.backend import Meta
from cluster.codec import Packed
from cluster.errors import ClusterError, JobTimeout, QueueFull, Unreachable
from cluster.submission import BATCH, new_id

#: Jobs that may be submitted and not yet given.
WINDOW = 10_000
#: Seconds that a batch of arguments may take to come; the next is smaller if it takes longer.
PATIENCE = 0.005
#: Seconds that what the caller does not wait for may take.
IN_PASSING = 1.0
#: What is wrong with one job's arguments, and with no other's.
_OF_ONE = (TypeError, ValueError, RecursionError, SerializationError, ClusterError)


class Way(NamedTuple):
    """How a client does for one job what is done here for many."""

    send: Callable[..., Any]
    transfers: Callable[[str, float, float], AbstractContextManager[object]]
    why_late: Callable[[Any, str, float], str]


class Bulk:
    """The jobs of one task, of which at most `window` are submitted and not yet given.

    Each may take `timeout` seconds from its submission on; `deadline` is for all of them, by the
    monotonic clock.
    """

    def __init__(
        self,
        app: App,
        way: Way,
        task: str,
        rows: Iterable[Sequence[Any]],
        *,
        window: int,
        timeout: float,
        deadline: float = math.inf,
    ) -> None:
        self._app, self._way, self._task = app, way, task
        self._rows = iter(rows)
        self._has_more = True
        self._window, self._size = window, 1
        self._timeout, self._deadline = timeout, deadline
        #: Jobs in order, and until when each is waited for; what became of those that ended.
        self._order: deque[tuple[str, float]] = deque()
        self._ended: dict[str, Any] = {}
        #: Jobs that were given: nobody will ask for their results.
        self._given: list[str] = []
        self._some_were_late = False

    def values(self) -> Iterator[Any]:
        """Yield each job's value, or the error in its place, in order."""
        store: Any = self._app.backend
        self._store = store
        with store.result_consumer.bulk(IN_PASSING) as self._wait:
            try:
                while self._order or self._has_more:
                    self._go_on()
                    while self._order and self._order[0][0] in self._ended:
                        yield self._next()
            except Unreachable:
                raise
            except BaseException:
                self._revoke()
                raise
            finally:
                self._forget()

    def _go_on(self) -> None:
        """Submit some jobs, or wait where enough are submitted; and collect what has ended."""
        room = self._window - len(self._order)
        if self._has_more and room >= min(self._size, max(1, self._window // 4)):
            self._submit(min(self._size, room))
            self._wait.look()
        else:
            self._listen()
        while self._wait.ended:
            meta = self._wait.ended.popleft()
            self._ended[meta["task_id"]] = meta

    # To submit ---------------------------------------------------------------------------

    def _submit(self, most: int) -> None:
        began = monotonic()
        rows = [*islice(self._rows, most)]
        self._has_more = len(rows) == most
        for row in rows:
            if not isinstance(row, list | tuple):
                raise TypeError(f"a job's arguments are a tuple, such as (4, 6), not {brief(row)}")
        now = monotonic()
        # What was taken must not wait for long for what is to come.
        self._size = min(2 * most, BATCH) if now - began < PATIENCE else max(1, most // 4)
        deadline = min(self._deadline, now + self._timeout)
        jobs = {new_id(): args for args in rows}
        self._wait.expect(jobs)
        self._order.extend((job_id, deadline) for job_id in jobs)
        try:
            self._send(jobs, deadline - now)
        except broker.AWAY as error:
            raise broker.unreachable(self._app, error) from None

    def _send(self, jobs: dict[str, Sequence[Any]], seconds: float) -> None:
        submission, messages = self._app.submission, []
        template = submission.template(self._task, {})
        if template is None:
            with self._app.producer_or_acquire() as producer, producer.batch():
                for job_id, args in jobs.items():
                    self._send_one(job_id, args, seconds, producer=producer)
            return
        for job_id, args in jobs.items():
            job = submission.job(args, None, {"task_id": job_id, "reply_to": self._wait.oid})
            if job is None:
                self._send_one(job_id, args, seconds)
            else:
                messages.append(template.message(job))
        submission.publish(template, messages, max_retries=max(1, int(seconds / 3)))

    def _send_one(self, job_id: str, args: Sequence[Any], seconds: float, **options: Any) -> None:
        options |= {"task_id": job_id, "reply_to": self._wait.oid}
        deadline = monotonic() + seconds
        try:
            with self._way.transfers(self._task, deadline, seconds):
                self._way.send(self._task, args, {}, seconds, **options)
        except (QueueFull, Unreachable):
            raise
        except _OF_ONE as error:
            self._end(job_id, error)

    # To collect --------------------------------------------------------------------------

    def _listen(self) -> None:
        """Wait for the first news; at the next job's deadline it ends as late."""
        until = self._order[0][1]
        if self._wait.wait(until):
            return
        if self._wait.error:
            raise broker.unreachable(self._app, self._wait.error)
        for job_id, deadline in self._order:
            if deadline > until:
                break
            if job_id not in self._ended:
                self._end(job_id, JobTimeout(self._why_late(job_id)))

    def _why_late(self, job_id: str) -> str:
        if self._some_were_late:  # it takes seconds to ask all workers
            return f"{self._task} gave no result within {self._timeout:g} s: job {job_id}"
        self._some_were_late = True
        return self._way.why_late(self._app.AsyncResult(job_id), self._task, self._timeout)

    def _end(self, job_id: str, error: BaseException) -> None:
        """End a job of which nothing is stored, or not yet."""
        self._wait.expect_no_more([job_id])
        self._ended[job_id] = {"status": FAILURE, "result": error}

    def _next(self) -> Any:
        job_id, deadline = self._order.popleft()
        meta = self._ended.pop(job_id)
        if "task_id" in meta:
            self._given.append(job_id)
            if len(self._given) >= BATCH:
                self._forget()
        if type(meta) is dict:
            value = meta["result"]
            if meta["status"] == SUCCESS or isinstance(value, BaseException):
                return value if not isinstance(value, Packed) else _without_numpy(value)
            return ClusterError(f"the job ended as {meta['status']}: {value!r}")
        return self._fetched(job_id, meta, deadline)

    def _fetched(self, job_id: str, meta: Meta, deadline: float) -> Any:
        """Return a large value, which is removed where it was."""
        try:
            with self._way.transfers(self._task, deadline, self._timeout):
                value = meta["result"]
        except broker.AWAY as error:
            raise broker.unreachable(self._app, error) from None
        except ClusterError as error:
            value = error
        with suppress(OSError, *broker.AWAY):
            self._store.remove(job_id, meta)
        return _without_numpy(value) if isinstance(value, Packed) else value

    # In the end --------------------------------------------------------------------------

    def _forget(self) -> None:
        """Remove results that were given; what is left, because Redis is away, expires."""
        given, self._given = self._given, []
        if given:
            with suppress(OSError, *broker.AWAY):
                self._store.result_consumer.forget(given, IN_PASSING)

    def _revoke(self) -> None:
        """Have no job begin any more: nobody will take its result."""
        waiting = [job_id for job_id, _ in self._order if job_id not in self._ended]
        if waiting:
            with suppress(OSError, *broker.AWAY):
                self._app.control.revoke(waiting)


def _without_numpy(value: Packed) -> ClusterError:
    return ClusterError(f"the value is an array ({value!r}): install numpy here")
