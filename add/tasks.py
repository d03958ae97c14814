"""Tasks of the family `add`: quick sums, a slow one, and one that fails at first."""

import time
from typing import Annotated, Any

from celery import shared_task
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult
from msgspec import Meta

from cluster import arguments, settings

Number = int | float | complex

#: Default of the environment variable MAX_WAIT: longest wait of `longtime_add`, in seconds.
MAX_WAIT = 100
#: Time in seconds that `error_of` waits for the error to be stored.
ERROR_TIMEOUT = 10.0


@shared_task
def add(x: Number, y: Number) -> Any:
    """Return x + y, for integers of any size, floats and complex numbers.

    Raise TypeError for any other type, such as bool or str, and OverflowError if an integer
    is too large to be added to a float.
    """
    return arguments.number("x", x) + arguments.number("y", y)


@shared_task
def tsum(numbers: list[Number]) -> Any:
    """Return the sum of a list of numbers, 0 for an empty one.

    Raise TypeError if `numbers` is not a list of numbers.
    """
    if not isinstance(numbers, list | tuple):
        raise arguments.mismatch("numbers", numbers, list)
    return sum(arguments.number(f"numbers[{i}]", number) for i, number in enumerate(numbers))


@shared_task
def longtime_add(x: Number, y: Number, seconds: float = 5) -> Any:
    """Return x + y after a wait of `seconds`, from 0 to MAX_WAIT.

    Raise TypeError if an argument is not a number, ValueError if `seconds` is out of bounds.
    """
    arguments.number("x", x)
    arguments.number("y", y)
    time.sleep(
        arguments.seconds("seconds", seconds, settings.integer("MAX_WAIT", MAX_WAIT), "MAX_WAIT")
    )
    return x + y


@shared_task(bind=True)
def unsteady_add(self: Any, x: Number, y: Number, failures: Annotated[int, Meta(ge=0)] = 2) -> Any:
    """Return x + y, after failing `failures` times with a ConnectionError.

    It demonstrates the retries after transient errors (`cluster.task.Task`). Raise
    ConnectionError if `failures` exceeds the number of retries, TypeError if an argument is
    not a number.
    """
    arguments.whole_number("failures", failures, minimum=0)
    total = add(x, y)
    if self.request.retries < failures:
        raise ConnectionError(f"simulated failure of try {self.request.retries + 1}")
    return total


@shared_task
def error_of(job_id: str) -> str:
    """Return the error of a failed job as a string, `ValueError: …`; for use with `link_error`.

    Wait for the error for up to ERROR_TIMEOUT seconds, since Celery calls the error callbacks
    of a chord just before it stores the error. Raise ValueError if the job has not failed by then,
    TypeError if `job_id` is not a string.
    """
    arguments.text("job_id", job_id)
    failed: AsyncResult[Any] = AsyncResult(job_id)
    try:
        error = failed.get(timeout=ERROR_TIMEOUT, propagate=False, disable_sync_subtasks=False)
    except CeleryTimeout:
        raise ValueError(f"job {job_id} stored no result within {ERROR_TIMEOUT:g} s") from None
    if not failed.failed():
        raise ValueError(f"job {job_id} has not failed")
    return f"{type(error).__name__}: {error}"
