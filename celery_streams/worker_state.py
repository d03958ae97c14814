"""What a Celery worker in this process does with the messages it was given.

A transport knows messages only; but where its connection is lost, or its worker ends, it has
to know which of them are in work. In any other program the answer is: none.
"""

import sys
from typing import Any

from kombu.asynchronous import get_event_loop

#: Where Celery's worker keeps its requests.
_STATE = "celery.worker.state"
_has_crashed = False
_is_worker = False


def note_worker() -> None:
    """Note that a worker begins in this process; the processes of its pool know it, too."""
    global _is_worker  # noqa: PLW0603 - a process does not cease to be one
    _is_worker = True


def is_worker() -> bool:
    """Return True if a worker, or a process of its pool, runs in this process."""
    return _is_worker


def is_stopping() -> bool:
    """Tell whether a worker runs in this process, and was told to stop."""
    state: Any = sys.modules.get(_STATE)
    if state is None:
        return False
    # Before each job: written out, for a generator takes three times as long.
    stop, terminate = state.should_stop, state.should_terminate
    return not ((stop is None or stop is False) and (terminate is None or terminate is False))


def note_crash() -> None:
    """Note that an error ended this process's worker: what it held may have been the cause."""
    global _has_crashed  # noqa: PLW0603 - a process crashes once
    _has_crashed = True


def has_crashed() -> bool:
    """Return True if an error ended this process's worker."""
    return _has_crashed


def running() -> set[str]:
    """Return the delivery tags of the messages whose jobs run now."""
    state: Any = sys.modules.get(_STATE)
    return set(_tags(_snapshot(state.active_requests))) if state else set()


def in_pool() -> dict[str, bool]:
    """Return the tags of jobs that run or were handed to the pool, and whether they surely run.

    Where a connection is lost, Celery's prefork pool drops what it had not sent to a process yet.
    A pool of threads, which keeps no result to tell by, runs whatever it was given.
    """
    state: Any = sys.modules.get(_STATE)
    if not state:
        return {}
    handed = [each for each in _snapshot(state.reserved_requests) if each._apply_result is not None]  # noqa: SLF001 - Celery has no other name
    surely = {tag: request._apply_result() is None for tag, request in _tags(handed).items()}  # noqa: SLF001
    return dict.fromkeys(running(), False) | surely


def run_what_is_ready() -> None:
    """Run what a worker's event loop would run next: acknowledgements of jobs that ended."""
    hub: Any = get_event_loop()
    for callback in hub._pop_ready() if hub else ():  # noqa: SLF001 - the loop has ended
        callback()


def _tags(requests: list[Any]) -> dict[str, Any]:
    return {request._message.delivery_tag: request for request in requests}  # noqa: SLF001 - the same


def _snapshot(requests: Any) -> list[Any]:
    """Return the requests of a set that other threads, and the garbage collector, change."""
    while True:
        try:
            return [*requests]
        except RuntimeError:  # it did just now
            continue
