"""Bounded concurrency for clients on asyncio."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, TypeVar

#: Limit for concurrent operations.
MAX_OPERATIONS = 50

T = TypeVar("T")
V = TypeVar("V")


async def gathered(work: Callable[[T], Coroutine[Any, Any, V]], items: Iterable[T]) -> list[V]:
    """Return the value of `work` for each item, in order."""
    values: list[V] = []
    left = iter(items)
    while several := list(islice(left, MAX_OPERATIONS)):
        values += await asyncio.gather(*map(work, several))
    return values
