"""How clients on asyncio do many things at a time, but not all at once."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, TypeVar

#: Operations under way at a time.
MOST = 50

T = TypeVar("T")
V = TypeVar("V")


async def gathered(work: Callable[[T], Coroutine[Any, Any, V]], items: Iterable[T]) -> list[V]:
    """Return what some work gives for each item, in order."""
    values: list[V] = []
    left = iter(items)
    while several := list(islice(left, MOST)):
        values += await asyncio.gather(*map(work, several))
    return values
