"""Calls of tasks as methods: `client.tasks.add.add(4, 6)`.

Any name is accepted here; `calls.pyi` tells editors and type checkers which tasks there are. As
the contracts, it is made by `make contracts`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any


class _Family:
    """The tasks of one family."""

    def __init__(self, family: str, call: Callable[..., Any]) -> None:
        self._family, self._call = family, call

    def __getattr__(self, task: str) -> Callable[..., Any]:
        task = _public(task)
        return partial(self._call, f"{self._family}.tasks.{task}")


class Tasks:
    """The tasks of all families; `call` is given a task's name and its arguments."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __getattr__(self, family: str) -> _Family:
        return _Family(_public(family), self._call)


def _public(name: str) -> str:
    """Return the name; raise AttributeError for one that Python or a tool asks for."""
    if name.startswith("_"):
        raise AttributeError(name)
    return name
