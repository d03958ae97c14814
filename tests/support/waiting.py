"""Waiting for a condition, with a deadline and a message."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

T = TypeVar("T")


def eventually(what: str, check: Callable[[], T], seconds: float = 30.0) -> T:
    """Return the first true value of `check`; fail with `what` after `seconds`."""
    deadline = monotonic() + seconds
    while not (value := check()):
        assert monotonic() < deadline, f"not within {seconds:g} s: {what}"
        sleep(0.05)
    return value
