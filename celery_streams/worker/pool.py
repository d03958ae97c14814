"""The worker's pool of processes: Celery's, which knows what its processes were given.

It looks at every hard time limit, too.
"""

from functools import partial
from time import monotonic
from typing import Any

from billiard import pool as billiard_pool
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.concurrency import asynpool, prefork

# A process of the pool that ends waits until its results were read, 30 s long by default; where
# the main process stops under load it reads none any more. What was not read is not
# acknowledged: another worker is given the job, and finds its result. In tenths of a second:
billiard_pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 10

#: Seconds, more than enough, from a job in the pipe of an idle process until this has begun it.
PATIENCE = 10.0
#: Seconds between two looks at whether such a process is still there.
LOOK = 0.1


class Pool(asynpool.AsynPool):
    """A pool that forgets no job, and where a hard time limit below the soft one holds."""

    on_timeout_set: Any

    # What the type stubs leave out of Celery's class.
    handle_result_event: Any
    _cache: dict[int, Any]
    _flush_writer: Any
    _result_handler: Any

    def flush(self) -> None:
        """Drop the jobs that no process was given; a worker's messages are about to go elsewhere.

        Celery's drops what no process has told to have begun. One that was given a job a moment
        before runs it all the same, while its message goes to another worker.
        """
        until = monotonic() + PATIENCE
        while (given := self._given()) and monotonic() < until:
            self._hear(given)
        super().flush()

    def _given(self) -> list[Any]:
        """Return the jobs that a process was given, and has not told to have begun."""
        return [
            job
            for job in self._cache.values()
            if job._write_to and not job._accepted and job._write_to._is_alive()  # noqa: SLF001 - Celery has no other names
        ]

    def _hear(self, given: list[Any]) -> None:
        """Write what is left of jobs, then read what their processes tell, as the loop would."""
        processes = {}
        for job in given:
            process = job._write_to  # noqa: SLF001 - the same
            processes[process.outqR_fd] = process
            writer = asynpool._get_job_writer(job)  # type: ignore[attr-defined]  # noqa: SLF001
            if writer:
                self._flush_writer(process, writer)
        readable, _, _ = asynpool._select({*processes}, timeout=LOOK)  # type: ignore[attr-defined]  # noqa: SLF001
        for place in readable:
            if not self._result_handler._finish_partial_read(place, processes[place]):  # noqa: SLF001
                self.handle_result_event(place)

    def _create_timelimit_handlers(self, hub: Any) -> None:
        """Count the hard limit from the start of a job.

        Celery's begins to count it when the soft one has passed, so a job with a hard limit
        of its own of 1 s ran on until the cluster's soft limit, 110 s.
        """
        super()._create_timelimit_handlers(hub)  # type: ignore[misc]  # the stubs leave it out
        set_timers = self.on_timeout_set

        def on_timeout_set(job: Any, soft: Any, hard: Any) -> None:
            soft, hard = _seconds(soft), _seconds(hard)
            set_timers(job, None if soft and hard and soft >= hard else soft, hard)

        self.on_timeout_set = on_timeout_set


def _seconds(limit: Any) -> float | None:
    """Return a time limit, or None for what is none: it would end the worker, and the next one."""
    return limit if isinstance(limit, int | float) and limit > 0 else None


#: What the pools leave out of `time_limit` and `soft_time_limit`; prefork keeps both.
_UNKEPT = {
    "solo": ("hard", "soft"),
    "thread": ("hard", "soft"),
    "eventlet": ("hard", "soft"),
    "gevent": ("soft",),
}


def unkept_limits(pool: Any) -> tuple[str, ...]:
    """Return which time limits, "hard" and "soft", a worker's pool does not keep."""
    return _UNKEPT.get(type(pool).__module__.rpartition(".")[2], ())


def contain_errors(pool: Any) -> None:
    """Have a pool that is not prefork end each job, whatever its task raised.

    Celery's threads drop `SystemExit` and what the tracer could not handle: the caller waits for
    ever, and so does the thread's place in the pool.
    """
    if type(pool).__module__.rpartition(".")[2] not in _UNKEPT:
        return
    apply = pool.on_apply

    def on_apply(target: Any, *args: Any, **options: Any) -> Any:
        return apply(partial(_contained, target), *args, **options)

    pool.on_apply = on_apply


def _contained(target: Any, *args: Any, **options: Any) -> Any:
    """Run a job, and return what Celery's tracer does: True for a failure, the value, seconds."""
    try:
        return target(*args, **options)
    except BaseException as error:  # noqa: BLE001 - in prefork, it ends the process
        lost = WorkerLostError(f"the job ended by {type(error).__name__}")
        return True, ExceptionInfo((WorkerLostError, lost, error.__traceback__)), 0.0


class TaskPool(prefork.TaskPool):
    """Celery's prefork pool, on the one above."""

    Pool = Pool
