"""Celery's prefork pool, with lost connections and hard time limits handled correctly."""

from functools import partial
from time import monotonic
from typing import Any

from billiard import pool as billiard_pool
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.concurrency import asynpool, prefork

#: Tenths of a second that an exiting pool process waits for its results to be read. The default is
#: 30 s, but a stopping main process reads none. The jobs are not acked and are delivered again.
RESULTS_READ_WAIT = 10
#: Time limit for pool processes to report the jobs sent to them as started, in seconds.
START_TIMEOUT = 10.0
#: Interval of checks that those processes are alive, in seconds.
LIVENESS_INTERVAL = 0.1


class Pool(asynpool.AsynPool):
    """A pool that tracks jobs sent to its processes and allows a hard limit below the soft one."""

    on_timeout_set: Any

    # Attributes missing from the type stubs.
    handle_result_event: Any
    _cache: dict[int, Any]
    _flush_writer: Any
    _result_handler: Any

    def flush(self) -> None:
        """Drop the jobs not sent to a process, before the worker's messages are released.

        Celery's method also drops those sent but not reported as started, which would run here and
        on another worker.
        """
        until = monotonic() + START_TIMEOUT
        while (jobs := self._unconfirmed()) and monotonic() < until:
            self._read_reports(jobs)
        super().flush()

    def _unconfirmed(self) -> list[Any]:
        """Return the jobs sent to a process that has not reported their start."""
        return [
            job
            for job in self._cache.values()
            if job._write_to and not job._accepted and job._write_to._is_alive()  # noqa: SLF001 - Celery has no other names
        ]

    def _read_reports(self, jobs: list[Any]) -> None:
        """Finish writing jobs to pipes and read the processes' reports, as the loop does."""
        processes = {}
        for job in jobs:
            process = job._write_to  # noqa: SLF001 - the same
            processes[process.outqR_fd] = process
            writer = asynpool._get_job_writer(job)  # type: ignore[attr-defined]  # noqa: SLF001
            if writer:
                self._flush_writer(process, writer)
        readable, _, _ = asynpool._select({*processes}, timeout=LIVENESS_INTERVAL)  # type: ignore[attr-defined]  # noqa: SLF001
        for fd in readable:
            if not self._result_handler._finish_partial_read(fd, processes[fd]):  # noqa: SLF001
                self.handle_result_event(fd)

    def _create_timelimit_handlers(self, hub: Any) -> None:
        """Start a job's hard limit with the job.

        Celery starts it when the soft limit has passed, which ignores a hard limit below it.
        """
        super()._create_timelimit_handlers(hub)  # type: ignore[misc]  # the stubs leave it out
        set_timers = self.on_timeout_set

        def on_timeout_set(job: Any, soft: Any, hard: Any) -> None:
            soft, hard = _seconds(soft), _seconds(hard)
            set_timers(job, None if soft and hard and soft >= hard else soft, hard)

        self.on_timeout_set = on_timeout_set


def _seconds(limit: Any) -> float | None:
    """Return a time limit, or None if it is invalid: that would crash worker after worker."""
    return limit if isinstance(limit, int | float) and limit > 0 else None


#: Time limits that a pool does not enforce, by the pool's module; prefork enforces both.
_UNENFORCED = {
    "solo": ("hard", "soft"),
    "thread": ("hard", "soft"),
    "eventlet": ("hard", "soft"),
    "gevent": ("soft",),
}


def unenforced_limits(pool: Any) -> tuple[str, ...]:
    """Return the time limits, "hard" and "soft", that a worker's pool does not enforce."""
    return _UNENFORCED.get(type(pool).__module__.rpartition(".")[2], ())


def contain_errors(pool: Any) -> None:
    """Make a pool other than prefork report a failure for every error that a job raises.

    Celery's thread pool drops `SystemExit` and the tracer's own errors: the caller waits for ever
    and the pool loses a slot.
    """
    if type(pool).__module__.rpartition(".")[2] not in _UNENFORCED:
        return
    apply = pool.on_apply

    def on_apply(target: Any, *args: Any, **options: Any) -> Any:
        return apply(partial(_contained, target), *args, **options)

    pool.on_apply = on_apply


def _contained(target: Any, *args: Any, **options: Any) -> Any:
    """Run a job and return (is_failure, value, seconds), as Celery's tracer does."""
    try:
        return target(*args, **options)
    except BaseException as error:  # noqa: BLE001 - in prefork, it ends the process
        lost = WorkerLostError(f"the job was ended by {type(error).__name__}")
        return True, ExceptionInfo((WorkerLostError, lost, error.__traceback__)), 0.0


def install() -> None:
    """Have billiard's exiting processes wait for RESULTS_READ_WAIT."""
    billiard_pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = RESULTS_READ_WAIT


class TaskPool(prefork.TaskPool):
    """Celery's prefork pool, which releases no job that a process has already received."""

    Pool = Pool
