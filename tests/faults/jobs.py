"""Jobs with known answers."""

import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

#: Seconds of the longest wait in a load.
LONGEST = 0.5
#: The largest factorial in a load.
LARGEST = 300


class Job(NamedTuple):
    """What is asked, the answer, and how many seconds it is to wait before it runs."""

    task: str
    args: tuple[Any, ...]
    answer: Any
    countdown: float = 0


def mixed(chance: random.Random, longest: float = LONGEST) -> Iterator[Job]:
    """Yield jobs without end: most are quick sums, some wait, some compute."""
    while True:
        x, y = chance.randrange(10**9), chance.randrange(10**9)
        kind = chance.random()
        if kind < 0.7:
            yield Job("add.tasks.add", (x, y), x + y)
        elif kind < 0.9:
            seconds = round(chance.uniform(0, longest), 3)
            yield Job("add.tasks.longtime_add", (x, y, seconds), x + y)
        else:
            n = chance.randrange(LARGEST)
            yield Job("factorial.tasks.factorial", (n,), math.factorial(n))


def delayed(chance: random.Random, least: float, most: float) -> Iterator[Job]:
    """Yield quick sums without end, each due after a time between two, in seconds."""
    while True:
        x, y = chance.randrange(10**9), chance.randrange(10**9)
        yield Job("add.tasks.add", (x, y), x + y, round(chance.uniform(least, most), 3))
