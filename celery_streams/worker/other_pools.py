"""Celery's other pools: the limits that they do not enforce, and the errors that they drop."""

from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError

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
