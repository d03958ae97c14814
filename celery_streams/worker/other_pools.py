"""Celery's other pools: the limits that they do not enforce, and the errors that they drop."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError

logger = logging.getLogger(__name__)

#: The attributes of a task that hold its time limits, in the order of a message's header.
_LIMITS = {"hard": "time_limit", "soft": "soft_time_limit"}
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


class UnenforcedLimits:
    """Warns, once for each kind, of time limits that a worker's pool does not enforce."""

    def __init__(self, pool: Any) -> None:
        self._kinds = {*unenforced_limits(pool)}

    def warn_of_tasks(self, app: Any) -> None:
        """Warn if an app's tasks have such limits."""
        for kind in [*self._kinds]:
            name = _LIMITS[kind]
            tasks = app.tasks.values()
            if app.conf.get(f"task_{name}") or any(getattr(task, name, None) for task in tasks):
                self._warn(kind)

    def warn_of_job(self, headers: Mapping[str, Any]) -> None:
        """Warn if a job has such limits."""
        if self._kinds:
            for kind, limit in zip(_LIMITS, headers.get("timelimit") or (), strict=False):
                if limit and kind in self._kinds:
                    self._warn(kind)

    def _warn(self, kind: str) -> None:
        self._kinds.discard(kind)
        logger.warning(
            "this worker's pool keeps no %s time limits, neither of tasks nor of jobs: jobs run "
            "to their ends; the default pool keeps them",
            kind,
        )


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
