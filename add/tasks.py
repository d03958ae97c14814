"""What the family `add` does: quick sums, and a slow one to watch."""

import time
from typing import Any

from celery import shared_task

from cluster import limits

Number = int | float | complex

#: Seconds that `longtime_add` may wait: MAX_WAIT can lower or raise it, up to TASK_TIME_LIMIT.
MAX_WAIT = 100


@shared_task
def add(x: Number, y: Number) -> Any:
    """Return x + y, for integers of any size, floats and complex numbers.

    Raises TypeError if either is anything else (a bool, a text), OverflowError if an
    integer is too large to be added to a float.
    """
    return limits.number("x", x) + limits.number("y", y)


@shared_task
def tsum(numbers: list[Number]) -> Any:
    """Return the sum of a list of numbers, 0 for an empty one.

    Raises TypeError if it is no list, or holds anything but numbers.
    """
    if not isinstance(numbers, list | tuple):
        raise TypeError(f"numbers must be a list, not {limits.brief(numbers)}")
    return sum(limits.number(f"numbers[{i}]", number) for i, number in enumerate(numbers))


@shared_task
def longtime_add(x: Number, y: Number, seconds: float = 5) -> Any:
    """Return x + y after a wait of `seconds`, from 0 to MAX_WAIT.

    Raises TypeError for anything but numbers, ValueError for a wait that is out of bounds.
    """
    limits.number("x", x)
    limits.number("y", y)
    time.sleep(limits.seconds("seconds", seconds, limits.setting("MAX_WAIT", MAX_WAIT), "MAX_WAIT"))
    return x + y
