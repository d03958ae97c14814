"""What the family `add` does: quick sums, and a slow one to watch."""

import time
from typing import Any

from celery import shared_task
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult

from cluster import arguments, settings

Number = int | float | complex

#: Seconds that `longtime_add` may wait: MAX_WAIT can lower or raise it, up to TASK_TIME_LIMIT.
MAX_WAIT = 100
#: Seconds that `error_of` waits for an error to be stored.
ERROR_TIMEOUT = 10.0


@shared_task
def add(x: Number, y: Number) -> Any:
    """Return x + y, for integers of any size, floats and complex numbers.

    Raises TypeError if either is anything else (a bool, a text), OverflowError if an
    integer is too large to be added to a float.
    """
    return arguments.number("x", x) + arguments.number("y", y)


@shared_task
def tsum(numbers: list[Number]) -> Any:
    """Return the sum of a list of numbers, 0 for an empty one.

    Raises TypeError if it is no list, or holds anything but numbers.
    """
    if not isinstance(numbers, list | tuple):
        raise TypeError(f"numbers must be a list, not {arguments.brief(numbers)}")
    return sum(arguments.number(f"numbers[{i}]", number) for i, number in enumerate(numbers))


@shared_task
def longtime_add(x: Number, y: Number, seconds: float = 5) -> Any:
    """Return x + y after a wait of `seconds`, from 0 to MAX_WAIT.

    Raises TypeError for anything but numbers, ValueError for a wait that is out of bounds.
    """
    arguments.number("x", x)
    arguments.number("y", y)
    time.sleep(
        arguments.seconds("seconds", seconds, settings.integer("MAX_WAIT", MAX_WAIT), "MAX_WAIT")
    )
    return x + y


@shared_task(bind=True)
def unsteady_add(self: Any, x: Number, y: Number, failures: int = 2) -> Any:
    """Return x + y, after so many tries that fail as a lost connection does.

    It shows how an error that can pass is met: see `cluster.task.Task`. Raises
    ConnectionError if `failures` is more than the retries a job has, TypeError for
    anything but numbers.
    """
    arguments.whole_number("failures", failures, least=0)
    total = add(x, y)
    if self.request.retries < failures:
        raise ConnectionError(f"try {self.request.retries + 1} was to fail")
    return total


@shared_task
def error_of(job_id: str) -> str:
    """Return the error of a failed job as text, `ValueError: …`: made for `link_error`.

    Waits for that error for up to ERROR_TIMEOUT seconds: Celery calls a chord's error
    callbacks just before it stores the error. Raises ValueError if the job has not failed by
    then, TypeError for anything but an id.
    """
    if not isinstance(job_id, str):
        raise TypeError(f"job_id must be a text, not {arguments.brief(job_id)}")
    failed: AsyncResult[Any] = AsyncResult(job_id)
    try:
        error = failed.get(timeout=ERROR_TIMEOUT, propagate=False, disable_sync_subtasks=False)
    except CeleryTimeout:
        raise ValueError(f"no error of job {job_id} came within {ERROR_TIMEOUT:g} s") from None
    if not failed.failed():
        raise ValueError(f"job {job_id} has not failed")
    return f"{type(error).__name__}: {error}"
