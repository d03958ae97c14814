"""Jobs with known answers."""

import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

#: Limit for the duration of a job in a load, in seconds.
MAX_SECONDS = 0.5
#: Limit for a factorial in a load.
MAX_FACTORIAL = 300


class Job(NamedTuple):
    """A task with its arguments, the answer, and the countdown in seconds."""

    task: str
    args: tuple[Any, ...]
    answer: Any
    countdown: float = 0


def mixed(chance: random.Random, max_seconds: float = MAX_SECONDS) -> Iterator[Job]:
    """Yield jobs without end: most are quick sums, some wait, some compute."""
    while True:
        x, y = chance.randrange(10**9), chance.randrange(10**9)
        kind = chance.random()
        if kind < 0.7:
            yield Job("add.tasks.add", (x, y), x + y)
        elif kind < 0.9:
            seconds = round(chance.uniform(0, max_seconds), 3)
            yield Job("add.tasks.longtime_add", (x, y, seconds), x + y)
        else:
            n = chance.randrange(MAX_FACTORIAL)
            yield Job("factorial.tasks.factorial", (n,), math.factorial(n))


def delayed(chance: random.Random, min_seconds: float, max_seconds: float) -> Iterator[Job]:
    """Yield quick sums without end, each due in `min_seconds` to `max_seconds`."""
    while True:
        x, y = chance.randrange(10**9), chance.randrange(10**9)
        yield Job(
            "add.tasks.add", (x, y), x + y, round(chance.uniform(min_seconds, max_seconds), 3)
        )
