"""Waiting for what happens elsewhere: a check, a deadline, and what to say past it."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

T = TypeVar("T")


def eventually(what: str, check: Callable[[], T], seconds: float = 30.0) -> T:
    """Return the first true value of `check`; fail with `what` past the deadline."""
    deadline = monotonic() + seconds
    while not (value := check()):
        assert monotonic() < deadline, f"not within {seconds:g} s: {what}"
        sleep(0.05)
    return value
